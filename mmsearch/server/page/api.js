// The server: addresses, and answers or a Problem.

const BASE = "/api/v1";

/** What the server refused (problem+json), or why it could not be reached (`status` 0). */
export class Problem extends Error {
  constructor(detail, status = 0, position = null) {
    super(detail);
    Object.assign(this, { status, position });
  }

  /** Without the query and the caret, which terminals show. */
  get sentence() { return this.message.split("\n")[0]; }
}

export function address(path, values = {}) {
  const parts = new URLSearchParams();
  for (const [name, given] of Object.entries(values)) {
    for (const value of Array.isArray(given) ? given : [given]) {
      if (value !== "" && value !== null && value !== undefined && value !== false) parts.append(name, value === true ? 1 : value);
    }
  }
  const query = String(parts);
  return `${BASE}${path}${query ? `?${query}` : ""}`;
}

async function response(path, values, options) {
  let answer;
  try {
    answer = await fetch(address(path, values), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is mmsearch serve still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) document.dispatchEvent(new Event("stale"));
  let said = {};
  try { said = await answer.json(); } catch { /* not JSON: the status has to do */ }
  throw new Problem(said.detail ?? said.title ?? said.error ?? `the server said ${answer.status}`, answer.status, said.position ?? null);
}

export async function ask(path, values, options) {
  return (await response(path, values, options)).json();
}

/** The body of an answer; `told(share)` hears how much has arrived, 0 to 1, where the server says how much there is. */
export async function askBlob(path, values, options, told = () => {}) {
  const answer = await response(path, values, options);
  const total = Number(answer.headers.get("Content-Length"));
  const parts = [];
  let arrived = 0;
  const reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    arrived += part.value.length;
    told(total ? arrived / total : null, arrived);
  }
  return new Blob(parts, { type: answer.headers.get("Content-Type") ?? "" });
}

export const postJson = (body, options = {}) =>
  ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });

/** The thumbnail of a document, or of the moment of a hit. */
export function thumbnail(item, size) {
  return address("/thumbnail", { path: item.path, t: item.best_s ?? item.start_s, size });
}

export const fileAddress = (path) => address("/file", { path });

/** What the server can do; filled before anything is shown. */
export const features = { voice: true, ocr: false, places: false, allow_changes: false };
