#!/bin/sh
# msvc.sh ARGUMENTS... - clang as Windows knows it, clang-cl: MSVC's dialect, in which long has 32
# bits and __GNUC__ is missing. With -U__clang__ guards choose as for MSVC itself; intrinsics then
# need -m flags, which MSVC does without. mingw has the headers and the runtime, in which two names
# differ; its gcc links.

case " $* " in
*" -c "*)
    exec clang --target=x86_64-pc-windows-msvc -fms-compatibility-version=19.33 \
        -idirafter /usr/x86_64-w64-mingw32/include -include tests/msvc.h "$@" \
        -Wno-language-extension-token -Wno-unused-command-line-argument ;;
*)
    for argument; do                        # objects and -o PROGRAM are all that gcc is told
        shift
        case $argument in *.o | *.exe | -o | -lm) set -- "$@" "$argument" ;; esac
    done
    exec x86_64-w64-mingw32-gcc -Wl,--defsym=__chkstk=___chkstk_ms,--defsym=_fltused=0 "$@" ;;
esac
