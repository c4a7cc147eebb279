// The query language, as far as a page has to read and write it: which parts of a query are filters.

export const KEYS = ["type", "after", "before", "path", "folder", "near", "camera", "lens", "title", "artist", "album", "said", "lang", "size", "duration", "rating"];
const ABOUT_MOMENTS = ["said", "lang"];  // a query of these alone looks for moments, not for files
const KEY = /([A-Za-z]{2,}):(?=[^\s:/])/y;
const OWN_KEY = new RegExp(`(${KEYS.join("|")}):`, "iy");
const SPECIAL = '"\\:-*?,';

/**
 * The parts of a query in their order: {text, from, to, key, value, negated}. `key` is null for words and phrases;
 * `value` is without quotes and backslashes. What the server would refuse comes out as some part or other.
 */
export function partsOf(query) {
  const parts = [];
  let at = 0;
  while (at < query.length) {
    if (/\s/.test(query[at])) { at += 1; continue; }
    const from = at;
    const negated = query[at] === "-" && /["\\\p{L}\p{N}]|[^\x00-\x7f]/u.test(query[at + 1] ?? "");
    if (negated) at += 1;
    OWN_KEY.lastIndex = KEY.lastIndex = at;
    const key = query[at] === '"' ? null : OWN_KEY.exec(query) ?? KEY.exec(query);
    if (key) at += key[0].length;
    let value = "";
    let quoted = false;
    while (at < query.length && (quoted || !/\s/.test(query[at]))) {
      if (query[at] === '"' && (quoted || key || at === from + Number(negated))) {
        quoted = !quoted;
        at += 1;
        if (!quoted && !key) break;
      } else {
        if (query[at] === "\\" && at + 1 < query.length && (SPECIAL.includes(query[at + 1]) || /\s/.test(query[at + 1]))) at += 1;
        value += query[at];
        at += 1;
      }
    }
    parts.push({ text: query.slice(from, at), from, to: at, key: key ? key[1].toLowerCase() : null, value, negated });
  }
  return parts;
}

const isPlain = (part, keys) => part.key !== null && !part.negated && keys.includes(part.key);

/** The filters of some keys that are not negated. */
export const filtersOf = (query, keys) => partsOf(query).filter((part) => isPlain(part, keys));

/** The query without these filters, and with others after it, each as `filter` writes it. */
export function withFilters(query, keys, added) {
  const rest = partsOf(query).filter((part) => !isPlain(part, keys)).map((part) => part.text);
  return [...rest, ...added].join(" ");
}

export function without(query, part) {
  return `${query.slice(0, part.from).trimEnd()} ${query.slice(part.to).trimStart()}`.trim();
}

/** A filter as it has to be written. */
export function filter(key, value) {
  return `${key}:${/[\s"\\]/.test(value) ? `"${value.replace(/["\\]/g, "\\$&")}"` : value}`;
}

/** The filter for one folder and all below it, whatever characters its name has. */
export function folderFilter(folder) {
  const value = `${folder.replace(/[\\"*?,:]/g, "\\$&")}/`;
  return `path:${/[\s\\]/.test(value) ? `"${value}"` : value}`;
}

/** Whether a query is filters alone, so that it is a part of the library to leaf through and not a search. */
export function isListing(query) {
  return partsOf(query).every((part) => part.key !== null && !ABOUT_MOMENTS.includes(part.key));
}

/** The words of a query, without filters and what is excluded. */
export const wordsOf = (query) => partsOf(query).filter((part) => part.key === null && !part.negated).map((part) => part.value).join(" ");
