// Markdown as elements. A model's text is not trusted: it only ever becomes the text of elements that are made here, or
// the address of a link to http or https. Depth and length are limited, so that no text takes long to show.

const MOST_DEPTH = 8;
const LONGEST_INLINE = 10_000;

/** A new element with `properties` and `children`, which are elements or texts. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Shows `text` in `element`; what is there already and has not changed stays, so that streaming is quick. */
function showMarkdown(element, text) {
  const shown = element.shownBlocks ?? [];
  const blocks = splitBlocks(text.split(/\r\n?|\n/));
  const keys = blocks.map((block) => block.kind + block.lines.join("\n"));
  let same = 0;
  while (same < keys.length && keys[same] === shown[same]) same++;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...blocks.slice(same).map((block) => blockElement(block, 0)));
  element.shownBlocks = keys;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

function kindOf(line, next) {
  if (/^\s*$/.test(line)) return "blank";
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && next?.includes("|") && DIVIDER.test(next)) return "table";
  return "paragraph";
}

function splitBlocks(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    const kind = kindOf(lines[at], lines[at + 1]);
    const end = kind === "blank" ? at + 1 : endOf(kind, lines, at);
    if (kind !== "blank") blocks.push({ kind, lines: lines.slice(at, end) });
    at = end;
  }
  return blocks;
}

/** Where the block ends that begins at `start`. */
function endOf(kind, lines, start) {
  const kindAt = (at) => kindOf(lines[at], lines[at + 1]);
  let at = start + 1;
  if (kind === "code") {
    const fence = lines[start].match(FENCE)[1];
    while (at < lines.length && !closes(lines[at], fence)) at++;
    return Math.min(at + 1, lines.length);
  }
  if (kind === "list") {
    const [, { length: indent }, mark] = lines[start].match(ITEM);
    const inside = (line) => /^\s/.test(line) && line.search(/\S/) > indent;
    const isNumbered = (mark) => /\d/.test(mark);
    const isItem = (at) => kindAt(at) === "list" && isNumbered(lines[at].match(ITEM)[2]) === isNumbered(mark);
    for (; at < lines.length; at++) {
      const blank = kindAt(at) === "blank";
      const goesOn = blank ? at + 1 < lines.length && (inside(lines[at + 1]) || isItem(at + 1))
        : inside(lines[at]) || isItem(at) || (kindAt(at) === "paragraph" && lines[at - 1].trim());
      if (!goesOn) break;
    }
    return at;
  }
  const more = { quote: ["quote", "paragraph"], paragraph: ["paragraph"] }[kind];
  if (kind === "table") while (at < lines.length && lines[at].includes("|")) at++;
  if (more) while (at < lines.length && more.includes(kindAt(at))) at++;
  return at;
}

function closes(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

function blockElement({ kind, lines }, depth) {
  if (depth > MOST_DEPTH) return make("p", {}, lines.join("\n"));
  switch (kind) {
    case "code": return codeElement(lines);
    case "heading": {
      const [, marks, text] = lines[0].match(HEADING);
      // The page has headings of its own above.
      return make("h" + Math.min(marks.length + 2, 6), {}, ...inline(text, 0));
    }
    case "rule": return make("hr");
    case "quote": return make("blockquote", {}, ...blockElements(lines.map((line) => line.replace(QUOTE, "")), depth));
    case "list": return listElement(lines, depth);
    case "table": return tableElement(lines);
    default: return make("p", {}, ...inline(lines.map((line) => line.trimStart()).join("\n"), 0));
  }
}

function blockElements(lines, depth) {
  return splitBlocks(lines).map((block) => blockElement(block, depth + 1));
}

function codeElement(lines) {
  const [, fence, name] = lines[0].match(FENCE);
  const isClosed = lines.length > 1 && closes(lines.at(-1), fence);
  const code = lines.slice(1, isClosed ? -1 : undefined).join("\n");
  const copy = make("button", { type: "button", textContent: "Copy", onclick: () => copyText(code, copy) });
  copy.setAttribute("aria-label", "Copy the code");
  const bar = make("div", { className: "code-bar" }, make("span", {}, name.trim().slice(0, 40) || "code"), copy);
  return make("div", { className: "code" }, bar, make("pre", { tabIndex: 0 }, make("code", {}, code)));
}

function listElement(lines, depth) {
  const [, indent, first] = lines[0].match(ITEM);
  const items = [];
  for (const line of lines) {
    const item = line.match(ITEM);
    if (item && item[1].length <= indent.length && !RULE.test(line)) {
      items.push({ width: item[0].length, lines: [line.slice(item[0].length)] });
    } else {
      const { width, lines } = items.at(-1);
      lines.push(line.slice(Math.min(width, Math.max(line.search(/\S/), 0))));
    }
  }
  const list = make(/\d/.test(first) ? "ol" : "ul");
  if (/\d/.test(first)) list.start = parseInt(first, 10);
  for (const item of items) {
    const blocks = blockElements(item.lines, depth);
    // An item of one line is no paragraph.
    if (blocks[0]?.tagName === "P") blocks[0].replaceWith(blocks[0] = make("span", {}, ...blocks[0].childNodes));
    list.append(make("li", {}, ...blocks));
  }
  return list;
}

function tableElement([head, divider, ...rows]) {
  const cells = (row) => row.trim().replace(/^\||\|$/g, "").split("|").slice(0, 50).map((cell) => cell.trim());
  const sides = cells(divider).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start"));
  const line = (row, tag) => make("tr", {}, ...cells(row).map((cell, column) =>
    make(tag, { className: sides[column] ?? "start" }, ...inline(cell, 0))));
  const table = make("table", {}, make("thead", {}, line(head, "th")), make("tbody", {}, ...rows.map((row) => line(row, "td"))));
  return make("div", { className: "table", tabIndex: 0 }, table);
}

const ADDRESS = String.raw`((?:[^\s()<>]|\([^\s()<>]*\))+)`;
const INLINE = [
  [/\\([!-/:-@[-`{-~])/y, ([, mark]) => [mark]],
  [/(?<!`)(`+)(?!`)([^]*?[^`])\1(?!`)/y, ([, , code]) => [make("code", {}, code)]],
  [new RegExp(String.raw`!?\[([^\[\]]*)\]\(\s*${ADDRESS}(?:\s+"[^"]*")?\s*\)`, "y"),
    ([all, text, address], depth) => [link(address, all.startsWith("!") ? ["Image: " + text] : inline(text, depth)) ?? all]],
  [/<(https?:\/\/[^\s<>]+)>/y, ([all, address]) => [link(address, [address]) ?? all]],
  [/(?<![\w/])https?:\/\/[^\s<>"'`*]*[^\s<>"'`*.,:;!?)\]}]/y, ([address]) => [link(address, [address]) ?? address]],
  [/\*\*(?=\S)([^]*?\S)\*\*(?!\*)/y, ([, text], depth) => [make("strong", {}, ...inline(text, depth))]],
  [/(?<!\w)__(?=\S)([^]*?\S)__(?!\w)/y, ([, text], depth) => [make("strong", {}, ...inline(text, depth))]],
  [/\*(?=[^\s*])([^*]*[^\s*])\*/y, ([, text], depth) => [make("em", {}, ...inline(text, depth))]],
  [/(?<!\w)_(?=[^\s_])([^_]*[^\s_])_(?!\w)/y, ([, text], depth) => [make("em", {}, ...inline(text, depth))]],
  [/~~(?=\S)([^]*?\S)~~/y, ([, text], depth) => [make("del", {}, ...inline(text, depth))]],
  [/\n/y, () => [make("br")]],
];

/** The elements and texts of a paragraph. */
function inline(text, depth) {
  if (depth > MOST_DEPTH || text.length > LONGEST_INLINE) return [text];
  const parts = [];
  let plain = "";
  for (let at = 0; at < text.length;) {
    // Most characters begin nothing.
    const found = /[\\`!\[<h*_~\n]/.test(text[at]) && firstMatch(text, at);
    if (found) {
      parts.push(plain, ...found.build(found.match, depth + 1));
      plain = "";
      at += found.match[0].length;
    } else {
      plain += text[at++];
    }
  }
  return [...parts, plain].filter((part) => part !== "");
}

function firstMatch(text, at) {
  for (const [pattern, build] of INLINE) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) return { match, build };
  }
  return null;
}

/** A link to a page of the web; nothing for other addresses. */
function link(address, children) {
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address)) return null;
  const { href } = new URL(address);
  return make("a", { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

/** Copies `text`, and says so on `button` for a while. */
async function copyText(text, button) {
  // Browsers have a clipboard on secure pages only.
  const done = await navigator.clipboard?.writeText(text).then(() => true, () => false) ?? copySelected(text);
  button.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function copySelected(text) {
  const field = make("textarea", { value: text, className: "hidden" });
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

