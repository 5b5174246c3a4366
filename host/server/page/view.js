// The page: what is shown, and what keys and buttons do.

const EVERY = 3000;
const at = (id) => document.getElementById(id);

let model;
let chat = sortedChats()[0] ?? newChat();
/** The answer that is being written: `{ chat, message, control }`. */
let running;

function show() {
  showList();
  showLog();
}

function showList() {
  at("list").replaceChildren(...sortedChats().map((item) => {
    const open = make("button", { type: "button", className: "open", textContent: titleOf(item), onclick: () => openChat(item) });
    if (item.id === chat.id) open.setAttribute("aria-current", "true");
    const row = make("li", {}, open);
    const rename = make("button", { type: "button", textContent: "Rename", onclick: () => renameChat(row, item) });
    rename.setAttribute("aria-label", "Rename " + titleOf(item));
    const remove = make("button", { type: "button", textContent: "Delete", onclick: () => removeChat(item) });
    remove.setAttribute("aria-label", "Delete " + titleOf(item));
    row.append(make("span", {}, rename, remove));
    return row;
  }));
}

/** Shows the messages; the button that has the focus keeps it. */
function showLog() {
  const focused = document.activeElement?.dataset?.name;
  const near = document.activeElement?.closest?.("article")?.dataset.id;
  const index = [...at("log").children].findIndex(({ dataset }) => dataset.id === near);
  const actions = { edit, regenerate, show: choose, runs: (message) => running?.message === message };
  at("log").replaceChildren(...shownPath(chat).map((message) => messageElement(chat, message, actions)));
  if (!chat.messages.length) at("log").append(make("p", { className: "empty" }, "What would you like to know?"));
  document.title = titleOf(chat) + " – hyperion";
  const buttons = at("log").children[index]?.querySelectorAll(".tools button:enabled") ?? [];
  if (focused) ([...buttons].find(({ dataset }) => dataset.name === focused) ?? buttons[0] ?? at("input")).focus();
}

function openChat(item) {
  chat = item;
  menu(false);
  show();
  at("log").scrollTop = at("log").scrollHeight;
  at("input").focus();
}

function renameChat(row, item) {
  const field = make("input", { value: titleOf(item), maxLength: 200 });
  field.setAttribute("aria-label", "New name");
  let open = true;
  const end = (takes) => {
    if (!open) return;
    open = false;
    if (takes && field.value.trim()) item.title = field.value.trim();
    save(item);
    show();
    [...at("list").children].find((row) => row.firstChild.textContent === titleOf(item))?.firstChild.focus();
  };
  field.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.stopPropagation();
    end(event.key === "Enter");
  };
  field.onblur = () => end(true);
  row.replaceChildren(field);
  field.select();
}

function removeChat(item) {
  if (!confirm(`Delete “${titleOf(item)}”?`)) return;
  if (running?.chat === item) running.control.abort();
  deleteChat(item);
  openChat(item === chat ? sortedChats()[0] ?? newChat() : chat);
}

function save(item) {
  try {
    saveChat(item);
  } catch {
    problem("The browser has no room left for conversations. Delete some to keep this one.");
  }
}

function problem(text) {
  at("problem").textContent = text;
}

function choose(message) {
  chat.chosen[message.parent] = message.id;
  save(chat);
  showLog();
}

function edit(message) {
  if (running) return problem("Stop the running answer first.");
  editMessage(articleOf(message), message.content, (content) => {
    if (content) return send(content, message.parent);
    showLog();
    articleOf(message).querySelector(".tools button:last-child").focus();
  });
}

function regenerate(message) {
  if (running) return problem("Stop the running answer first.");
  answer(message.parent);
}

function articleOf({ id }) {
  return [...at("log").children].find(({ dataset }) => dataset.id === id);
}

/** Adds a message of the user after `parent`, and answers it. */
function send(content, parent) {
  const message = addMessage(chat, parent, "user", content);
  answer(message.id);
  at("input").focus();
}

/** Writes an answer to the message called `parent`. */
async function answer(parent) {
  problem("");
  const path = pathTo(chat, parent);
  const message = Object.assign(addMessage(chat, parent, "assistant", ""), { reasoning: "" });
  const mine = running = { chat, message, control: new AbortController() };
  buttons();
  save(chat);
  show();
  follow(true);
  let drawn;
  const draw = () => {
    drawn = undefined;
    const atEnd = isAtEnd();
    const article = articleOf(message);
    if (article) fillAnswer(article, message, running === mine);
    if (article) follow(atEnd);
  };
  const saves = setInterval(() => saveRunning(mine), 2000);
  const body = completionBody(model, path, mine.chat.settings);
  const figures = await complete(body, mine.control.signal, (content, reasoning) => {
    message.content += content;
    message.reasoning += reasoning;
    drawn ??= requestAnimationFrame(draw);
  });
  clearInterval(saves);
  message.figures = figures;
  running = undefined;
  saveRunning(mine);
  buttons();
  draw();
  at("said").textContent = figures.problem ?? "Answer: " + (articleOf(message)?.children[1].textContent ?? message.content);
  if (figures.problem) problem(figures.problem);
  if (figures.status === 401) askKey();
}

/** Unless its conversation has been deleted. */
function saveRunning({ chat }) {
  if (chats.has(chat.id)) save(chat);
}

function isAtEnd() {
  const log = at("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 60;
}

function follow(does) {
  if (does) at("log").scrollTop = at("log").scrollHeight;
}

function buttons() {
  at("send").hidden = Boolean(running);
  at("stop").hidden = !running;
}

function stop() {
  running?.control.abort();
  at("input").focus();
}

function menu(isOpen) {
  document.body.classList.toggle("menu", isOpen);
  at("menu").setAttribute("aria-expanded", isOpen);
}

function askKey() {
  at("key-form").hidden = false;
  at("key").focus();
}

async function findModel() {
  try {
    const { data } = await (await ask("v1/models")).json();
    model = data[0].id;
    at("model").textContent = model;
    at("model").title = `Context of ${plural(data[0].max_model_len, "token")}`;
    problem("");
  } catch (error) {
    problem(error.message);
    if (error.status === 401) askKey();
  }
}

/** Shows the server's load for as long as somebody looks. */
async function watch() {
  if (document.visibilityState === "visible" && at("key-form").hidden) {
    if (!model) await findModel();
    try {
      const { loads: [load] } = await (await ask("v1/loads")).json();
      const pages = (tokens) => Math.ceil(tokens / load.page_size).toLocaleString("en");
      at("load").textContent = `${load.num_running_reqs} running · ${load.num_waiting_reqs} waiting · `
        + `${pages(load.num_used_tokens)} of ${pages(load.max_total_num_tokens)} pages · ${load.gen_throughput.toFixed(1)} tokens/s`;
    } catch (error) {
      at("load").textContent = error.status === 401 ? "" : error.message;
    }
  }
  setTimeout(watch, EVERY);
}

at("composer").onsubmit = (event) => {
  event.preventDefault();
  const content = at("input").value.trim();
  if (!content || running) return;
  at("input").value = "";
  grow(at("input"));
  send(content, shownPath(chat).at(-1)?.id ?? "");
};
at("input").onkeydown = (event) => {
  if (!sends(event)) return;
  event.preventDefault();
  at("composer").requestSubmit();
};
at("input").oninput = () => grow(at("input"));
at("stop").onclick = stop;
at("new").onclick = () => openChat(newChat());
at("menu").onclick = () => menu(!document.body.classList.contains("menu"));
at("key-form").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("hyperion.key", at("key").value);
  at("key").value = "";
  at("key-form").hidden = true;
  at("input").focus();
  findModel();
};
at("open-settings").onclick = () => {
  for (const name of SETTINGS) at("settings").querySelector(`[name=${name}]`).value = chat.settings[name] ?? "";
  at("settings").showModal();
};
at("close-settings").onclick = () => {
  const fields = [...at("settings").querySelectorAll("[name]")];
  if (fields.every((field) => field.reportValidity())) at("settings").close();
};
at("settings").onclose = () => {
  chat.settings = {};
  for (const { name, type, value, validity } of at("settings").querySelectorAll("[name]")) {
    if (value.trim() && validity.valid) chat.settings[name] = type === "number" ? Number(value) : value;
  }
  if (chat.messages.length) save(chat);
  at("open-settings").focus();
};
document.onkeydown = (event) => {
  if (event.key !== "Escape" || at("settings").open) return;
  if (running) stop();
  else menu(false);
};
// Another tab has changed something.
window.onstorage = () => {
  if (running) return;
  chats = readChats();
  chat = chats.get(chat.id) ?? chat;
  show();
};

show();
follow(true);
at("input").focus();
watch();
