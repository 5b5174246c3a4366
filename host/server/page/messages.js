// The messages of a conversation as elements.

/** The element of `message`. `actions` has what its buttons do: `edit`, `regenerate`, `show`; `runs` says what is written now. */
function messageElement(chat, message, actions) {
  const isUser = message.role === "user";
  const article = make("article", { className: message.role });
  article.dataset.id = message.id;
  article.setAttribute("aria-label", isUser ? "You" : "Answer");
  const text = make("div", { className: "text", dir: "auto" });
  if (isUser) {
    text.textContent = message.content;
    article.append(text, toolbar(chat, message, actions));
  } else {
    const thought = make("div", { className: "thought", dir: "auto" });
    const reasoning = make("details", { hidden: true }, make("summary", {}, "Reasoning"), thought);
    const problem = make("p", { className: "problem", hidden: true });
    article.append(reasoning, text, problem, make("p", { className: "figures" }), toolbar(chat, message, actions));
    fillAnswer(article, message, actions.runs(message));
  }
  return article;
}

/** Shows in `article` what there is of an answer. */
function fillAnswer(article, { content, reasoning, figures }, running) {
  const [details, text, problem, line] = article.children;
  details.hidden = !reasoning;
  // Nobody reads a folded text.
  details.ontoggle = () => details.open && showMarkdown(details.lastChild, reasoning);
  if (details.open) showMarkdown(details.lastChild, reasoning);
  showMarkdown(text, content);
  article.classList.toggle("running", running);
  const told = figures?.problem ?? (!figures && !running && "This answer was interrupted.");
  problem.hidden = !told;
  problem.textContent = told || "";
  if (running) line.textContent = reasoning && !content ? "Thinking…" : "Answering…";
  else line.textContent = figures?.parts || figures?.end ? figuresText(figures) : "";
  line.hidden = !line.textContent;
}

function toolbar(chat, message, { edit, regenerate, show }) {
  const bar = make("div", { className: "tools" });
  const button = (name, label, onclick) => {
    const made = make("button", { type: "button", textContent: name, onclick });
    made.setAttribute("aria-label", label);
    made.dataset.name = label;
    bar.append(made);
    return made;
  };
  const all = branches(chat, message.parent);
  const at = all.indexOf(message);
  if (all.length > 1) {
    button("‹", "Previous branch", () => show(all[at - 1])).disabled = at === 0;
    bar.append(make("span", { ariaLabel: `Branch ${at + 1} of ${all.length}`, role: "img" }, `${at + 1}/${all.length}`));
    button("›", "Next branch", () => show(all[at + 1])).disabled = at === all.length - 1;
  }
  const copy = button("Copy", "Copy the message", () => copyText(message.content, copy));
  if (message.role === "user") button("Edit", "Edit the message", () => edit(message));
  else button("Regenerate", "Regenerate the answer", () => regenerate(message));
  return bar;
}

/** Puts a field in place of a message's text; `done` gets the new one, or nothing where nothing is to change. */
function editMessage(article, content, done) {
  const field = make("textarea", { value: content, dir: "auto" });
  field.setAttribute("aria-label", "Edit the message");
  const send = make("button", { type: "button", textContent: "Send", onclick: () => done(field.value.trim()) });
  const cancel = make("button", { type: "button", textContent: "Cancel", onclick: () => done("") });
  field.onkeydown = (event) => {
    if (event.key === "Escape") cancel.click();
    else if (sends(event)) send.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  article.classList.add("editing");
  article.replaceChildren(field, make("div", { className: "tools" }, send, cancel));
  grow(field);
  field.oninput = () => grow(field);
  field.focus();
}

/** Whether this key sends. Where there is a keyboard on the screen only, Enter starts a line. */
function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && !matchMedia("(pointer: coarse)").matches;
}

/** As high as its text. */
function grow(field) {
  field.style.height = "auto";
  field.style.height = field.scrollHeight + 2 + "px";
}

