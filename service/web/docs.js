// Shows openapi.json as a page. All text is set as text, never as markup, whatever the document says.
'use strict';

/** An element with attributes and children; null children are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text with `code` and paragraphs, the only Markdown that descriptions use. */
function prose(text) {
  return text.trim().split(/\n\s*\n/).map((paragraph) => make('p', {},
    paragraph.split(/(`[^`]+`)/).map((part) => part.startsWith('`') && part.length > 2
      ? make('code', {}, part.slice(1, -1)) : part)));
}

function follow(spec, node) {
  let found = node;
  for (let steps = 0; found && found.$ref && steps < 10; steps += 1) {
    const target = found.$ref.slice(2).split('/').reduce(
      (inner, key) => inner && inner[key.replace(/~1/g, '/').replace(/~0/g, '~')], spec);
    const { $ref, ...beside } = found;
    found = { ...target, ...beside };
  }
  return found || {};
}

function refName(schema) {
  return schema && schema.$ref ? schema.$ref.split('/').pop() : '';
}

/** A schema's type in a few words: "integer", "array of string", "Prediction". */
function typeName(schema) {
  if (!schema) return 'any';
  if (schema.$ref) return refName(schema);
  const options = schema.anyOf || schema.oneOf;
  if (options) return options.map(typeName).join(' or ');
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' or ');
  if (schema.type === 'array') return `array of ${typeName(schema.items || (schema.prefixItems || [])[0])}`;
  if (schema.format === 'binary' || schema.contentMediaType) return 'bytes';
  return [schema.type || 'any'].flat().join(' or ');
}

function bounds(schema) {
  const words = [];
  const tell = (key, word) => { if (schema[key] !== undefined) words.push(`${word} ${schema[key]}`); };
  tell('minimum', 'from');
  tell('exclusiveMinimum', 'above');
  tell('maximum', 'to');
  tell('exclusiveMaximum', 'below');
  tell('minLength', 'length from');
  tell('maxLength', 'length to');
  tell('minItems', 'items from');
  tell('maxItems', 'items to');
  if ((schema.pattern || '').length <= 40) tell('pattern', 'like'); // a longer one says less than the description
  if (schema.default !== undefined) words.push(`default ${JSON.stringify(schema.default)}`);
  return words.join(', ');
}

function table(heads, rows) {
  // The roles stay where the style sheet takes the table apart for small screens.
  for (const row of rows) {
    row.setAttribute('role', 'row');
    for (const cell of row.children) cell.setAttribute('role', 'cell');
  }
  const head = make('tr', { role: 'row' }, heads.map((name) => make('th', { scope: 'col', role: 'columnheader' }, name)));
  return make('div', { class: 'scroll' }, make('table', { role: 'table' },
    make('thead', { role: 'rowgroup' }, head), make('tbody', { role: 'rowgroup' }, rows)));
}

function typeCell(schema) {
  const limits = bounds(schema);
  return make('td', {}, make('code', {}, typeName(schema)), limits ? make('div', { class: 'bounds' }, limits) : null);
}

function parameterTable(parameters) {
  return table(['name', 'in', 'type', 'meaning'], parameters.map((parameter) => make('tr', {},
    make('td', {}, make('code', {}, parameter.name),
      parameter.required ? make('div', { class: 'bounds' }, 'required') : null),
    make('td', {}, parameter.in),
    typeCell(parameter.schema || {}),
    make('td', {}, prose(parameter.description || '')))));
}

/** The fields of a schema; those of its objects in their turn, each schema opened once on a way down. */
function schemaView(spec, schema, seen = []) {
  const name = refName(schema);
  const whole = follow(spec, schema);
  const inner = [];
  for (const option of whole.anyOf || whole.oneOf || []) inner.push(option);
  if (whole.type === 'array' && whole.items) inner.push(whole.items);
  const fields = Object.entries(whole.properties || {});
  if (!fields.length) {
    const views = inner.filter((part) => part.$ref || part.properties || part.items)
      .map((part) => schemaView(spec, part, seen)).filter(Boolean);
    return views.length ? make('div', {}, views) : null;
  }
  if (seen.includes(name) && name) return null;
  const below = name ? [...seen, name] : seen;
  const required = new Set(whole.required || []);
  const rows = fields.map(([key, field]) => make('tr', {},
    make('td', {}, make('code', {}, key), required.has(key) ? null : make('div', { class: 'bounds' }, 'optional')),
    typeCell(field.$ref ? field : { ...follow(spec, field), ...field }),
    make('td', {}, prose(field.description || follow(spec, field).description || ''))));
  const deeper = fields.map(([, field]) => schemaView(spec, field, below)).filter(Boolean);
  return make('div', {}, name ? make('h3', {}, make('code', {}, name)) : null,
    table(['field', 'type', 'meaning'], rows), deeper);
}

function example(spec, named) {
  const [name, given] = named;
  const value = follow(spec, given).value;
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  return make('div', {}, make('h3', {}, `Example: ${name.replace(/_/g, ' ')}`), make('pre', { tabindex: '0' }, text));
}

function contentView(spec, content) {
  return Object.entries(content || {}).map(([mediaType, described]) => {
    const fields = schemaView(spec, described.schema);
    return make('div', {}, make('p', {}, make('code', {}, mediaType), ' ',
      make('span', { class: 'quiet' }, typeName(described.schema))),
    fields ? make('details', { class: 'more' }, make('summary', {}, 'Fields'), fields) : null,
    Object.entries(described.examples || {}).map((named) => example(spec, named)));
  });
}

function answerView(spec, status, given) {
  const answer = follow(spec, given);
  const headers = Object.entries(answer.headers || {});
  return make('details', { class: 'answer', open: status < '300' },
    make('summary', {}, make('strong', {}, status), ' ',
      prose(answer.description || '').flatMap((paragraph) => [...paragraph.childNodes])),
    headers.length ? make('p', { class: 'bounds' }, 'Headers: ',
      headers.flatMap(([name], i) => [i ? ', ' : '', make('code', {}, name)])) : null,
    contentView(spec, answer.content));
}

/** What one would type: the address, needed parameters as capitals, a body of the first kind taken. */
function curlLine(base, method, path, parameters, body) {
  const needed = parameters.filter((parameter) => parameter.in === 'query' && parameter.required)
    .map((parameter) => `${parameter.name}=${parameter.name.toUpperCase()}`);
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase());
  const url = base + filled.slice(1) + (needed.length ? `?${needed.join('&')}` : '');
  const words = ['curl'];
  if (method !== 'get' && !(method === 'post' && body)) words.push(`-X ${method.toUpperCase()}`);
  const kinds = Object.keys((body && body.content) || {});
  if (kinds.some((kind) => kind.startsWith('image/'))) words.push('--data-binary @photo.jpg');
  else if (kinds.includes('multipart/form-data')) words.push('-F image=@photo.jpg');
  else if (kinds.includes('application/json')) words.push("-H 'Content-Type: application/json' -d @body.json");
  else if (kinds.length) words.push(`-H 'Content-Type: ${kinds[0]}' --data-binary @file`);
  return [...words, `'${url}'`].join(' ');
}

function curlView(line) {
  const said = make('span', { class: 'quiet', role: 'status' });
  const button = make('button', { type: 'button' }, 'Copy');
  const shown = make('pre', { tabindex: '0' }, line);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(line);
      said.textContent = 'Copied.';
    } catch {
      // Without https there is no clipboard: at least select it.
      getSelection().selectAllChildren(shown);
      said.textContent = 'Selected; copy it with the keyboard.';
    }
  });
  return [make('div', { class: 'curl' }, shown, button), said];
}

/** The key that was entered on the start page, where one was. */
function keyHeader() {
  try {
    const key = sessionStorage.getItem('api-key');
    return key ? { 'x-api-key': key } : {};
  } catch {
    return {};
  }
}

/** A form for a GET: one field a parameter; the answer below it. */
function tryView(base, path, parameters) {
  const asked = parameters.filter((parameter) => parameter.in !== 'header');
  const fields = asked.map((parameter) => {
    const schema = parameter.schema || {};
    const attributes = { name: parameter.name, required: parameter.required, autocomplete: 'off' };
    const choices = schema.enum || (schema.type === 'boolean' ? [true, false] : null);
    const input = choices
      ? make('select', attributes, make('option', { value: '' }, ''), choices.map((c) => make('option', {}, `${c}`)))
      : make('input', { ...attributes, type: 'text' });
    return { parameter, input, label: make('label', {}, parameter.name, input) };
  });
  const out = make('div', { role: 'status' });
  const form = make('form', {}, fields.map((field) => field.label), make('button', {}, 'Send'));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    let target = path;
    for (const { parameter, input } of fields) {
      if (parameter.in === 'path') target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value !== '') query.append(parameter.name, input.value);
    }
    const url = base + target.slice(1) + (`${query}` ? `?${query}` : '');
    out.replaceChildren(make('p', { class: 'quiet' }, 'Waiting…'));
    try {
      const answer = await fetch(url, { headers: keyHeader() });
      const kind = answer.headers.get('content-type') || '';
      let text = await answer.text();
      if (kind.startsWith('application/json')) text = JSON.stringify(JSON.parse(text), null, 2);
      out.replaceChildren(make('p', {}, `${answer.status} ${kind}`), make('pre', { tabindex: '0' }, text));
    } catch (error) {
      out.replaceChildren(make('p', {}, `No answer: ${error.message}`));
    }
  });
  return make('details', { class: 'more' }, make('summary', {}, 'Try it'), form, out);
}

function operationView(spec, base, path, method, operation) {
  const parameters = (operation.parameters || []).map((parameter) => follow(spec, parameter));
  return make('details', { class: 'operation', id: operation.operationId },
    make('summary', {}, make('span', { class: `method ${method}` }, method.toUpperCase()),
      make('code', {}, path), make('span', { class: 'what' }, operation.summary || '')),
    make('div', { class: 'inside' },
      operation.description ? prose(operation.description) : null,
      curlView(curlLine(base, method, path, parameters, operation.requestBody)),
      method === 'get' ? tryView(base, path, parameters) : null,
      parameters.length ? [make('h3', {}, 'Parameters'), parameterTable(parameters)] : null,
      operation.requestBody ? [make('h3', {}, 'Body'), contentView(spec, operation.requestBody.content)] : null,
      make('h3', {}, 'Answers'),
      Object.entries(operation.responses).map(([status, answer]) => answerView(spec, status, answer))));
}

function show(spec) {
  const base = new URL('.', document.baseURI).href; // also right below a proxy's prefix
  const contents = document.getElementById('contents');
  const main = document.getElementById('content');
  document.title = `${spec.info.title}: API`;
  document.getElementById('title').textContent = `${spec.info.title} ${spec.info.version}`;
  main.replaceChildren(...prose(spec.info.description || ''));
  for (const tag of spec.tags) {
    const found = Object.entries(spec.paths).flatMap(([path, methods]) => Object.entries(methods)
      .filter(([, operation]) => operation.tags.includes(tag.name))
      .map(([method, operation]) => ({ path, method, operation })));
    contents.append(make('h2', {}, tag.name), make('ul', {}, found.map(({ path, method, operation }) => make('li', {},
      make('a', { href: `#${operation.operationId}` },
        make('span', { class: `method ${method}` }, method.toUpperCase()), make('code', {}, path))))));
    main.append(make('section', {}, make('h2', {}, tag.name), prose(tag.description || ''),
      found.map(({ path, method, operation }) => operationView(spec, base, path, method, operation))));
  }
}

/** Opens the operation that the address names; a closed one would hide what was asked for. */
function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.scrollIntoView();
    named.querySelector('summary').focus({ preventScroll: true });
  }
}

async function start() {
  const status = document.getElementById('status');
  try {
    const answer = await fetch('openapi.json');
    if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
    show(await answer.json());
    openNamed();
    addEventListener('hashchange', openNamed);
  } catch (error) {
    status.textContent = `The description of the API cannot be shown: ${error.message}`;
  }
}

start();
