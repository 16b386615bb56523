/* msvc.h - what it takes for clang to read mingw's headers in MSVC's dialect. */

#include <_mingw.h>

#undef  __attribute__
#undef  __MINGW_NOTHROW
#define __MINGW_NOTHROW
#undef  __MINGW_ATTRIB_NORETURN
#define __MINGW_ATTRIB_NORETURN
#undef  __MINGW_ATTRIB_DEPRECATED
#define __MINGW_ATTRIB_DEPRECATED

#define _setjmp another_setjmp              /* clang declares its own */
#include <setjmp.h>
#undef  _setjmp
