// Conversations, kept in the browser, each under a key of its own so that two tabs do not undo each other's.
//
// A conversation is a tree: the messages that follow one another are a path from its root, and editing or regenerating
// one adds a branch. `chosen` says for each message which of the following ones is shown; "" stands before the first.

const PREFIX = "hyperion.chat.";
const SETTINGS = ["system", "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];

let chats = readChats();

function readChats() {
  const found = new Map();
  for (let i = 0; i < localStorage.length; i++) {
    const chat = localStorage.key(i).startsWith(PREFIX) && readChat(localStorage.key(i));
    if (chat) found.set(chat.id, chat);
  }
  return found;
}

/** The conversation under `key`; nothing where it is none. */
function readChat(key) {
  try {
    const chat = JSON.parse(localStorage.getItem(key));
    const whole = PREFIX + chat.id === key && Array.isArray(chat.messages) && chat.chosen && chat.settings
      && chat.messages.every(({ id, parent, role, content }) =>
        [id, parent, content].every((text) => typeof text === "string") && ["user", "assistant"].includes(role));
    return whole ? chat : null;
  } catch {
    return null;
  }
}

/** The latest first. */
function sortedChats() {
  return [...chats.values()].sort((a, b) => b.used - a.used);
}

function newChat() {
  const settings = { ...sortedChats()[0]?.settings };
  return { id: newId(), title: "", used: Date.now(), messages: [], chosen: {}, settings };
}

/** Throws where the browser has no room left. */
function saveChat(chat) {
  chats.set(chat.id, chat);
  localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
}

function deleteChat(chat) {
  chats.delete(chat.id);
  localStorage.removeItem(PREFIX + chat.id);
}

function titleOf(chat) {
  const first = chat.messages.find(({ role }) => role === "user")?.content.trim() ?? "";
  return chat.title || (first.length > 60 ? first.slice(0, 60) + "…" : first) || "New conversation";
}

/** Adds a message after `parent` and shows it. */
function addMessage(chat, parent, role, content) {
  const message = { id: newId(), parent, role, content };
  chat.messages.push(message);
  chat.chosen[parent] = message.id;
  chat.used = Date.now();
  return message;
}

/** All that may follow `parent`. */
function branches(chat, parent) {
  return chat.messages.filter((message) => message.parent === parent);
}

/** The messages that are shown. */
function shownPath(chat) {
  const path = [];
  for (let parent = ""; path.length <= chat.messages.length;) {
    const next = branches(chat, parent);
    const message = next.find(({ id }) => id === chat.chosen[parent]) ?? next.at(-1);
    if (!message) break;
    path.push(message);
    parent = message.id;
  }
  return path;
}

/** The messages up to the one called `id`, with it. */
function pathTo(chat, id) {
  const path = [];
  for (let at = id; at && path.length <= chat.messages.length;) {
    const message = chat.messages.find((message) => message.id === at);
    if (!message) break;
    path.unshift(message);
    at = message.parent;
  }
  return path;
}

/** The random part is no secret; `crypto.randomUUID` is missing on plain HTTP. */
function newId() {
  return Date.now().toString(36) + Math.random().toString(36).slice(2, 10);
}

