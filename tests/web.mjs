// web.mjs FOLDER NATIVE - drives the page of examples/web, as built into FOLDER, in Chromium, and
// compares what it shows with what the program NATIVE (tests/web_native.c) prints. Leaves
// FOLDER/screenshot.png. Speaks the DevTools protocol over a pipe: no packages, only node.

import { execFileSync, spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder, native] = process.argv.slice(2);
const SEED = 7, OPENING = 'There was once a poor woman who said, "';

// ---- a static file server that knows no types but HTML and JavaScript ---------------------------

const server = createServer((request, response) => {
  const name = new URL(request.url, 'http://x').pathname.replace(/\/$/, '/index.html');
  const type = { html: 'text/html', js: 'text/javascript' }[name.split('.').pop()];
  try {
    response.writeHead(200, { 'content-type': type ?? 'application/octet-stream' });
    response.end(readFileSync(join(folder, name)));
  } catch {
    response.end();
  }
});
await new Promise(done => server.listen(0, '127.0.0.1', done));
const address = `http://127.0.0.1:${server.address().port}/?seed=${SEED}`;

// ---- Chromium: messages are JSON, each followed by a NUL; 3 is its input, 4 its output ----------

const profile = join(folder, '../web-profile');
rmSync(profile, { recursive: true, force: true });
const browser = spawn('chromium', [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-dev-shm-usage', '--remote-debugging-pipe', `--user-data-dir=${profile}`,
  '--window-size=1000,760', 'about:blank',
], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });

const waiting = new Map(), complaints = [];
let number = 0, received = '';

browser.stdio[4].setEncoding('utf8').on('data', data => {
  const messages = (received + data).split('\0');
  received = messages.pop();
  for (const message of messages.map(text => JSON.parse(text))) {
    waiting.get(message.id)?.(message);
    if (message.method === 'Runtime.exceptionThrown')
      complaints.push(message.params.exceptionDetails.exception?.description);
  }
});

const gone = new Promise((_, fail) => {
  for (const event of ['error', 'exit']) browser.on(event, () => fail(new Error('no browser')));
});
gone.catch(() => {});
browser.stdio[3].on('error', () => {});

let session;
async function send(method, params = {}) {
  const id = ++number;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + '\0');
  const answer = await Promise.race([gone, new Promise(done => waiting.set(id, done))]);
  if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
  return answer.result;
}

async function evaluate(expression) {
  const { result, exceptionDetails } = await send('Runtime.evaluate', { expression });
  if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception.description}`);
  return result.value;
}

async function until(expression) {
  for (let tries = 0; tries < 600; tries++) {
    if (await evaluate(expression)) return;
    await new Promise(done => setTimeout(done, 100));
  }
  throw new Error(`waited a minute for ${expression}; ${complaints}`);
}

// ---- what the page shows ------------------------------------------------------------------------

const press = id => evaluate(`document.getElementById('${id}').click()`);
const shown = async () => JSON.parse(await evaluate(`JSON.stringify({
  tale: document.getElementById('story').textContent,
  words: document.getElementById('story').childElementCount,
  tokens: Number(document.getElementById('tokens').textContent),
  bits: document.getElementById('bits').textContent,
  status: document.getElementById('status').textContent })`));

/* What is shown once nothing moves any more. */
async function shownAtRest() {
  let last, now = await shown();
  do {
    last = now;
    await new Promise(done => setTimeout(done, 300));
    now = await shown();
  } while (now.tokens !== last.tokens);
  return now;
}

const momentsOf = (opening, ...persona) => new Map(execFileSync(native,
  [join(folder, 'storyteller.gguf'), SEED, opening, 400, ...persona])
  .toString().trim().split('\n').map(line => {
    const [, tokens, bits, tale] = /^(\d+) (\S+) (.*)$/.exec(line);
    return [Number(tokens), { bits, tale: JSON.parse(tale) }];
  }));
const moments = momentsOf(OPENING);

let passed = 0, failed = 0;
function check(name, condition, ...values) {
  if (condition) passed++;
  else failed++;
  if (!condition) console.log(`${name} FAILED:`, ...values);
}

function checkMoment(name, page, all = moments) {
  const expected = all.get(page.tokens);
  check(name, expected?.tale === page.tale && expected.bits === page.bits, page, expected);
}

/* With the mouse over a word, so that what a click would take back is pale. */
async function screenshot() {
  const [x, y] = JSON.parse(await evaluate(`{
    const word = document.querySelectorAll('#story span')[24].getBoundingClientRect();
    JSON.stringify([word.x + 9, word.y + 9]) }`));
  await send('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y });
  const { data } = await send('Page.captureScreenshot');
  writeFileSync(join(folder, 'screenshot.png'), Buffer.from(data, 'base64'));
}

/* In a page of its own, so that the random numbers begin again. */
async function testPersona() {
  await send('Page.navigate', { url: address });
  await until(`document.getElementById('say')?.disabled === false`);
  await evaluate(`{ const who = document.getElementById('who'); who.value = 'pirate';
                    who.dispatchEvent(new Event('change')) }`);
  await until(`document.getElementById('text').value.startsWith('The pirate')`);
  await press('say');
  await until(`Number(document.getElementById('tokens').textContent) > 40`);
  await press('write');
  const told = momentsOf('The pirate said, "', join(folder, 'pirate.persona'));
  const page = await shownAtRest();
  checkMoment('what a persona tells', page, told);
  const nobody = momentsOf('The pirate said, "').get(page.tokens);
  check('not what nobody tells', page.tale !== nobody.tale);
  await press('anew');
  const anew = await shown();
  check('a persona begins anew', anew.tokens === 0 && anew.tale === '', anew);
}

async function test() {
  const { targetInfos } = await send('Target.getTargets');
  const { targetId } = targetInfos.find(target => target.type === 'page');
  session = (await send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  await send('Runtime.enable');
  await send('Page.enable');
  await send('Page.navigate', { url: address });
  await until(`document.getElementById('say')?.disabled === false`);

  await evaluate(`document.getElementById('text').select()`);
  await send('Input.insertText', { text: OPENING });
  for (const type of ['keyDown', 'keyUp'])
    await send('Input.dispatchKeyEvent', { type, key: 'Enter', code: 'Enter', text: '\r',
                                           windowsVirtualKeyCode: 13 });
  await until(`Number(document.getElementById('tokens').textContent) > 90`);
  await press('write');
  await screenshot();
  const told = await shownAtRest();
  checkMoment('the tale and its bits', told);
  check('the time of a frame', parseFloat(told.status) > 0, told.status);

  for (let i = 0; i < 5; i++) await press('back');
  const back = await shownAtRest();
  checkMoment('the same, five words earlier', back);
  check('five words less', back.words === told.words - 5, back.words, told.words);

  await press('write');
  await until(`Number(document.getElementById('tokens').textContent) > ${back.tokens + 30}`);
  await press('write');
  const onward = await shownAtRest();
  check('another way', onward.tale.startsWith(back.tale), onward);
  check('with other words', !onward.tale.startsWith(told.tale), onward);

  await evaluate(`document.querySelectorAll('#story span')[1].click()`);
  await press('write');
  const early = await shownAtRest();
  check('back to the first word', early.tale.startsWith(OPENING), early);
  check('few tokens', early.tokens < back.tokens, early);

  await press('anew');
  const anew = await shown();
  check('anew', anew.tale === '' && anew.tokens === 0, anew);

  await testPersona();
  check('no complaints', complaints.length === 0, complaints);
}

try {
  await test();
} catch (error) {
  failed++;
  console.log(error);
}
server.close();
if (browser.kill()) await new Promise(done => browser.on('exit', done));
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
