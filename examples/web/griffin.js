// griffin.js - the page around web.c: what is typed is read and told on, a few milliseconds of work
// in each frame, and every word keeps the bytes of the moment before it.

const BUDGET = 6;       // milliseconds of a frame in which the model may think
const PACE = 60;        // milliseconds from token to token: nobody reads faster
const WORDS = 300;      // that can be taken back; each costs a copy of the story's bytes
const ROOM = 4096;      // bytes of text that pass in or out at once
const PERSONA = 1 << 18;    // bytes of a persona's file, at most

const $ = id => document.getElementById(id);
const file = async name => {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
};

let engine, bytes;      // the module and its memory, which never grows
let story, size, text;  // addresses in it, and the bytes of a story
let first, personas;    // the moment before a tale; where a persona's file may lie
let writing = false, due = 0;

// ---- the engine ---------------------------------------------------------------------------------

function check(result) {
  if (result < 0) throw new Error(`error ${result} of griffin.h`);
  return result;
}

async function open() {
  const [code, model] = await Promise.all(['griffin.wasm', 'storyteller.gguf'].map(file));
  engine = (await WebAssembly.instantiate(code)).instance.exports;
  bytes = new Uint8Array(engine.memory.buffer);
  text = engine.reserve(ROOM);
  const at = engine.reserve(model.byteLength);
  if (!at) throw new Error('the model is larger than ARENA in web.c');
  bytes.set(new Uint8Array(model), at);
  const seed = new URLSearchParams(location.search).get('seed') ?? Date.now();
  if (engine.open(at, model.byteLength, Number(seed)) < 0) {
    const message = engine.error();
    throw new Error(new TextDecoder().decode(bytes.slice(message, bytes.indexOf(0, message))));
  }
  story = engine.story();
  size = engine.story_size();
  personas = engine.reserve(PERSONA);
  first = remember();
}

// Who tells: a persona is a small file, the state before the first token; '' is nobody's.
async function become(name) {
  const data = name ? new Uint8Array(await file(`${name}.persona`)) : new Uint8Array(0);
  if (data.length > PERSONA) throw new Error(`${name}: larger than PERSONA in griffin.js`);
  bytes.set(data, personas);
  check(engine.persona(personas, data.length));
  first = remember();
}

// All that the story is, once every word of it has been read.
function remember() {
  while (engine.work());
  return bytes.slice(story, story + size);
}

function goBackTo(moment) {
  bytes.set(moment, story);
  engine.drop();
}

function listen(words) {
  const { read, written } = new TextEncoder().encodeInto(words, bytes.subarray(text, text + ROOM));
  check(engine.listen(text, written));
  return words.slice(0, read);
}

function speak() {
  const length = check(engine.speak(text, ROOM));
  return new TextDecoder().decode(bytes.slice(text, text + length));
}

// FNV-1a of the logits: two runs that show the same number hardly ever differ in a bit.
function fingerprint() {
  const at = engine.logits();
  let hash = 0x811c9dc5;
  for (let i = at; i < at + engine.logits_size(); i++)
    hash = Math.imul(hash ^ bytes[i], 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, '0');
}

// ---- the tale -----------------------------------------------------------------------------------

// A token that does not begin with a space goes on with the word before it.
function append(words, moment, said) {
  const spans = $('story').children, last = $('story').lastElementChild;
  if (!said && last && !last.classList.contains('said') && !/^\s/.test(words)) {
    last.textContent += words;
    return;
  }
  const span = document.createElement('span');
  span.textContent = words;
  span.moment = moment;             // the one before it
  if (said) span.className = 'said';
  $('story').append(span);
  span.scrollIntoView({ block: 'nearest' });
  const old = spans[spans.length - 1 - WORDS];
  if (old) {
    old.moment = null;
    old.classList.add('old');
  }
}

function say(words) {
  const tale = $('story').textContent, moment = remember();
  if (tale && !/\s$/.test(tale) && !/^[\s.,;:!?]/.test(words)) words = ' ' + words;
  append(listen(words), moment, true);
}

function takeBack(span) {
  goBackTo(span.moment);
  while (span.nextSibling) span.nextSibling.remove();
  span.remove();
}

function write(on) {
  writing = on && $('story').childElementCount > 0;
  show();
}

// ---- the page -----------------------------------------------------------------------------------

function show() {
  const begun = $('story').childElementCount > 0;
  $('write').textContent = writing ? 'Pause' : 'Go on';
  for (const id of ['write', 'back', 'anew']) $(id).disabled = !begun;
  $('tokens').textContent = engine.position();
  $('bits').textContent = fingerprint();
}

const times = new Array(180).fill(0);       // milliseconds of work in the last frames

function draw() {
  const canvas = $('frames'), scale = devicePixelRatio, style = getComputedStyle(canvas);
  const width = canvas.width = canvas.clientWidth * scale;
  const height = canvas.height = canvas.clientHeight * scale;
  const pen = canvas.getContext('2d'), full = 1000 / 60;
  pen.fillStyle = style.getPropertyValue('--line');
  pen.fillRect(0, 0, width, scale);         // a whole frame
  pen.fillRect(0, height - scale, width, scale);
  pen.fillStyle = style.getPropertyValue('--accent');
  times.forEach((time, i) => {
    const bar = Math.min(time / full, 1) * height;
    pen.fillRect(i * width / times.length, height - bar, width / times.length - scale, bar);
  });
  const busy = times.filter(time => time >= 0.1);
  const mean = busy.reduce((sum, time) => sum + time, 0) / Math.max(busy.length, 1);
  $('status').textContent = `${mean.toFixed(1)} ms of thinking in a frame of ${full.toFixed(1)} ms,`
    + ` at most ${Math.max(...times).toFixed(1)} ms`;
}

function frame(now) {
  const start = performance.now(), before = engine.position();
  while (performance.now() - start < BUDGET) {
    if (engine.work()) continue;
    if (!writing || now < due) break;
    const moment = remember();
    append(speak(), moment, false);
    due = now + PACE;
  }
  times.push(performance.now() - start);
  times.shift();
  draw();
  if (engine.position() !== before) show();
  requestAnimationFrame(frame);
}

try {
  await open();
  $('bytes').textContent = size.toLocaleString('en');
  $('say').disabled = false;
  $('form').onsubmit = event => {
    event.preventDefault();
    if ($('text').value) say($('text').value);
    $('text').value = '';
    write(true);
  };
  $('write').onclick = () => write(!writing);
  $('back').onclick = () => {
    takeBack($('story').lastElementChild);
    write(false);
  };
  const beginAnew = () => {
    goBackTo(first);
    $('story').replaceChildren();
    write(false);
  };
  $('anew').onclick = beginAnew;
  $('who').onchange = async () => {
    const who = $('who').selectedOptions[0];
    await become(who.value);
    beginAnew();
    $('text').value = who.dataset.opening;
  };
  $('story').onclick = event => {
    if (!event.target.moment) return;
    takeBack(event.target);
    write(true);
  };
  show();
  requestAnimationFrame(frame);
} catch (error) {
  $('status').textContent = error.message;
  throw error;
}
