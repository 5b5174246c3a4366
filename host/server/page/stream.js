// Requests to the server, in OpenAI's form.

/** What went wrong, in words for the reader. */
class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Sends a request; `body` makes it a POST. Throws a `Problem` unless it succeeds. */
async function ask(path, { body, signal } = {}) {
  const headers = {};
  const key = sessionStorage.getItem("hyperion.key");
  if (key) headers.authorization = "Bearer " + key;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The server cannot be reached.");
  }
  if (response.ok) return response;
  if (response.status === 401) throw new Problem(key ? "The server does not know this API key." : "The server asks for an API key.", 401);
  const told = await response.json().catch(() => null);
  const wait = response.headers.get("retry-after");
  const later = wait ? ` Try again in ${wait} s.` : "";
  throw new Problem(sentence(told?.error?.message ?? `The server answered with status ${response.status}`) + later, response.status);
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** The body of a request for the next message after `path`. */
function completionBody(model, path, { system, ...sampling }) {
  const messages = path.map(({ role, content }) => ({ role, content }));
  if (system) messages.unshift({ role: "system", content: system });
  return { model, messages, stream: true, stream_options: { include_usage: true }, ...sampling };
}

/** Streams an answer: `onPart` gets each part's content and reasoning. Gives the figures, how it ended among them. */
async function complete(body, signal, onPart) {
  const begin = performance.now();
  const figures = { parts: 0 };
  let last;
  const seconds = () => {
    if (last === undefined || figures.parts < 2) return;
    figures.rate = ((figures.tokens ?? figures.parts) - 1) / ((last - begin) / 1000 - figures.first);
  };
  try {
    const response = await ask("v1/chat/completions", { body, signal });
    for await (const data of events(response)) {
      if (data === "[DONE]") {
        figures.end ??= "stop";
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Problem(sentence(chunk.error.message ?? "The server failed"));
      const { delta = {}, finish_reason } = chunk.choices?.[0] ?? {};
      if (delta.content || delta.reasoning_content) {
        last = performance.now();
        figures.first ??= (last - begin) / 1000;
        figures.parts++;
        onPart(delta.content ?? "", delta.reasoning_content ?? "");
      }
      if (finish_reason) figures.end = finish_reason;
      figures.seed ??= chunk.seed;
      if (chunk.usage) {
        figures.tokens = chunk.usage.completion_tokens;
        figures.prompt = chunk.usage.prompt_tokens;
        figures.cached = chunk.usage.prompt_tokens_details?.cached_tokens;
      }
    }
    if (!figures.end) figures.problem = "The connection ended before the answer did.";
  } catch (error) {
    if (signal.aborted) figures.end = "stopped";
    else figures.problem = error instanceof Problem ? error.message : "The connection broke: " + error.message;
    figures.status = error.status;
  }
  seconds();
  return figures;
}

/** The data of each server-sent event. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

/** The figures of an answer in words. */
function figuresText({ tokens, parts, rate, first, prompt, cached, seed, end }) {
  const about = tokens === undefined ? "about " : "";
  const texts = [
    about + plural(tokens ?? parts, "token"),
    isFinite(rate) && `${about}${rate.toFixed(1)} tokens/s`,
    first !== undefined && `first token after ${first.toFixed(2)} s`,
    prompt !== undefined && `${cached ?? 0} of ${prompt} prompt tokens cached`,
    Number.isSafeInteger(seed) && `seed ${seed}`,
    { length: "ended at the limit of tokens", stopped: "stopped" }[end],
  ];
  return texts.filter(Boolean).join(" · ");
}

function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

