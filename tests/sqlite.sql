-- sqlite.sql - for tests/sqlite.sh. Every SELECT gives a line: "ok" or "FAILED", what was checked.
-- The table native has what the library says by itself.

.bail on
.open build/sqlite/characters.db
.load build/griffin_sqlite
.read build/sqlite/native.sql
.separator ' '

SELECT iif(griffin_open('examples/models/storyteller.gguf') = 'storyteller'
           AND griffin_open('examples/models/storyteller.gguf') = 'storyteller'
           AND griffin_open('examples/models/storyteller.gguf', 'twin') = 'twin'
           AND griffin_open('build/sqlite/other.gguf') = 'other',
           'ok', 'FAILED'), 'models have names';

-- ---- as the library has it ----------------------------------------------------------------------

CREATE TABLE personas AS SELECT readfile('examples/personas/pirate.persona') AS pirate;

CREATE TABLE told AS
    SELECT 'first' AS name, text, state FROM griffin_say(NULL, 'Once upon a time', 20, 7);
INSERT INTO told
    SELECT 'second', s.text, s.state
    FROM told, griffin_say(told.state, ' Then the wolf said, "', 12, 8) AS s;
INSERT INTO told
    SELECT 'persona', text, state
    FROM personas, griffin_say(pirate, 'The pirate said, "', 15, NULL, 'twin', 0);

SELECT iif(count(*) = 3, 'ok', 'FAILED'), 'texts and states, byte for byte'
FROM told JOIN native USING (name) WHERE told.text = native.text AND told.state = native.state;

WITH heard AS (SELECT text, state FROM griffin_say(NULL, 'Once upon a time', 0, NULL)),
     some  AS (SELECT heard.text || s.text AS text, s.state
               FROM heard, griffin_say(heard.state, NULL, 8, 7) AS s),
     more  AS (SELECT some.text || s.text AS text, s.state
               FROM some, griffin_say(some.state, NULL, 12, NULL) AS s)
SELECT iif(more.text = told.text AND more.state = told.state, 'ok', 'FAILED'),
       'a text in three calls'
FROM more, told WHERE told.name = 'first';

SELECT iif(abs(griffin_score('The old king had three sons, and they lived in a castle.') - number)
           < 1e-9, 'ok', 'FAILED'), 'a score' FROM native WHERE name = 'score';
SELECT iif(abs(griffin_score('The captain came on deck with the treasure.', pirate) - number)
           < 1e-9, 'ok', 'FAILED'), 'a score by a persona'
FROM native, personas WHERE name = 'score as';
SELECT iif(griffin_score('') IS NULL AND griffin_score(NULL) IS NULL, 'ok', 'FAILED'),
       'no score of nothing';

CREATE TEMP VIEW likely AS SELECT * FROM griffin_next(NULL, 'There was once a little');
SELECT iif((SELECT group_concat(token) FROM (SELECT token FROM likely LIMIT 5))
           = (SELECT group_concat(text) FROM native WHERE name = 'next')
           AND abs((SELECT sum(probability) FROM (SELECT probability FROM likely LIMIT 5))
                   - (SELECT sum(number) FROM native WHERE name = 'next')) < 1e-9
           AND abs((SELECT sum(probability) FROM likely) - 1) < 1e-9, 'ok', 'FAILED'),
       'the likeliest tokens';
SELECT iif((SELECT piece FROM likely LIMIT 1)
           = (SELECT text FROM griffin_say(NULL, 'There was once a little', 1, 1, NULL, 0)),
           'ok', 'FAILED'), 'a piece is what is said';
SELECT iif(count(*) > 0, 'ok', 'FAILED'), 'bytes that are no text are BLOBs'
FROM likely WHERE typeof(piece) = 'blob' AND length(piece) = 1;

SELECT iif(griffin_score('A cat', NULL, 'other') <> griffin_score('A cat', NULL, 'storyteller'),
           'ok', 'FAILED'), 'another model';
SELECT iif(typeof(a.text) = 'text' AND a.text = b.text, 'ok', 'FAILED'), 'bytes that are no UTF-8'
FROM griffin_say(NULL, CAST(x'41ff42' AS TEXT), 5, 1) AS a,
     griffin_say(NULL, 'A' || char(65533) || 'B', 5, 1) AS b;
SELECT iif(typeof(text) = 'text', 'ok', 'FAILED'), 'a NUL in a text'
FROM griffin_say(NULL, 'A' || char(0) || 'B', 5, 1);

-- ---- a thousand characters, and two connections -------------------------------------------------

CREATE TABLE heard AS
    SELECT s.state FROM personas, griffin_say(pirate, 'The pirate said, "', 0, NULL) AS s;
CREATE TABLE characters(id INTEGER PRIMARY KEY, line TEXT, state BLOB);
INSERT INTO characters
    SELECT value, s.text, s.state
    FROM heard CROSS JOIN generate_series(1, 1000)
               CROSS JOIN griffin_say(heard.state, NULL, 2, value) AS s;
CREATE TABLE earlier AS SELECT * FROM characters;
SELECT iif(count(*) = 1000 AND count(DISTINCT line) > 100, 'ok', 'FAILED'), 'a thousand characters'
FROM characters;

.once /dev/null
PRAGMA journal_mode = wal;
BEGIN;
UPDATE characters SET (line, state) =
    (SELECT s.text, s.state FROM griffin_say(characters.state, ' And', 2, id) AS s);
SELECT iif(count(*) = 1000, 'ok', 'FAILED'), 'all have said more'
FROM characters JOIN earlier USING (id) WHERE characters.state <> earlier.state;

.connection 1
.open build/sqlite/characters.db
.load build/griffin_sqlite
.separator ' '
SELECT iif(griffin_open('examples/models/storyteller.gguf') = 'storyteller', 'ok', 'FAILED'),
       'a second connection';
SELECT iif(count(*) = 1000, 'ok', 'FAILED'), 'which sees what was said before'
FROM characters JOIN earlier USING (id, line, state);
SELECT iif(s.text = native.text AND s.state = native.state, 'ok', 'FAILED'), 'and goes on from it'
FROM native, told, griffin_say(told.state, ' Then the wolf said, "', 12, 8) AS s
WHERE native.name = 'second' AND told.name = 'first';

.connection 0
ROLLBACK;
SELECT iif(count(*) = 1000, 'ok', 'FAILED'), 'rolled back, to the bit'
FROM characters JOIN earlier USING (id, line, state);
.connection close 1
SELECT iif(s.text = native.text AND s.state = native.state, 'ok', 'FAILED'),
       'the other has closed its model, not this one'
FROM native, told, griffin_say(told.state, ' Then the wolf said, "', 12, 8) AS s
WHERE native.name = 'second' AND told.name = 'first';
