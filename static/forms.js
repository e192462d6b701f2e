// Copy buttons, actions as dialogs, and drafts: typed input survives an expired sign-in.

const SAID_MS = 1500; // how long a button says that it copied
const TYPED = "input[type=text], input:not([type]), input[type=url], input[type=search], input[type=datetime-local], textarea";

export function startCopying() {
  const unhide = () => document.querySelectorAll("[data-copy][hidden]").forEach((button) => { button.hidden = false; });
  if (!navigator.clipboard) return;
  unhide();
  document.addEventListener("htmx:after:swap", unhide);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    document.getElementById("announce").textContent = "Copied";
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), SAID_MS);
  });
}

export function startDialogs() {
  const dialog = document.getElementById("panel-dialog");
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail.ctx?.target !== dialog && event.detail.ctx?.target?.id !== "panel-dialog") return;
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("input:not([type=hidden]), select, textarea")?.focus();
    restore(dialog);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target !== dialog && !event.target.closest("[data-close]")) return;
    event.preventDefault();
    forget(dialog);
    dialog.close();
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
}

const key = (form) => `draft:${new URL(form.action).pathname}`;
const kept = (root) => [...root.querySelectorAll("form[data-keep]")];

function restore(root) {
  for (const form of kept(root)) {
    const draft = JSON.parse(sessionStorage.getItem(key(form)) ?? "{}");
    for (const field of form.querySelectorAll(TYPED)) {
      if (field.name in draft && field.value === field.defaultValue) field.value = draft[field.name];
    }
  }
}

const here = () => location.href.replace(/#.*/, "");
const forget = (root) => kept(root).forEach((form) => sessionStorage.removeItem(key(form)));

export function startDrafts() {
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-keep]");
    if (!form) return;
    const typed = [...form.querySelectorAll(TYPED)].map((field) => [field.name, field.value]);
    sessionStorage.setItem(key(form), JSON.stringify(Object.fromEntries(typed)));
  });
  document.addEventListener("submit", (event) => {
    if (event.target.matches("form[data-keep]")) sessionStorage.setItem("sent", JSON.stringify([key(event.target), here()]));
  });
  const [sent, from] = JSON.parse(sessionStorage.getItem("sent") ?? "[]");
  const answer = document.referrer === from; // and not a page that was opened before the answer had loaded
  const back = kept(document).some((form) => key(form) === sent);
  const refused = document.querySelector("main[data-refused]");
  if (sent && answer && !back && !refused) sessionStorage.removeItem(sent); // it went through
  sessionStorage.removeItem("sent");
  restore(document);
}
