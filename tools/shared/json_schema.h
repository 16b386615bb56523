/* json_schema.h - a grammar for the JSON texts that a schema describes.
 *
 * Of JSON Schema it knows: type (one or several), enum, const, properties (written in their order),
 * required, additionalProperties (true or false; none are written), items, minItems, maxItems,
 * minLength, maxLength, anyOf, oneOf (taken as anyOf), and $ref to a place in the same file. What
 * only describes, such as title, is skipped; any other keyword is refused by its name. */

#ifndef JSON_SCHEMA_H
#define JSON_SCHEMA_H

#include "report.h"

/* Returns the grammar, GBNF to be freed, or null after a message. */
char *json_schema_grammar(const void *data, size_t size, report *r);

#endif
