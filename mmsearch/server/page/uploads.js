// Pictures that were sent as questions, kept in this browser so that reload and back find them again.

import { kept } from "./dom.js";

const MOST = 20;
const memory = new Map();  // where a browser keeps nothing, as long as the page is open

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("mmsearch", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("pictures");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function inStore(mode, work) {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const request = work(database.transaction("pictures", mode).objectStore("pictures"));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } finally {
    database.close();
  }
}

/** Keeps a picture and returns the name to find it by. */
export async function keepPicture(file) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const picture = { blob: new Blob([await file.arrayBuffer()], { type: file.type }), name: file.name ?? "picture" };
  memory.set(id, picture);
  try {
    await inStore("readwrite", (store) => store.put(picture, id));
    const ids = [...kept.get("pictures", []), id];
    for (const old of ids.splice(0, ids.length - MOST)) await inStore("readwrite", (store) => store.delete(old));
    kept.set("pictures", ids);
  } catch { /* memory has it */ }
  return id;
}

/** {blob, name} of a picture that was kept, or null. */
export async function pictureOf(id) {
  if (memory.has(id)) return memory.get(id);
  try {
    return await inStore("readonly", (store) => store.get(id)) ?? null;
  } catch {
    return null;
  }
}
