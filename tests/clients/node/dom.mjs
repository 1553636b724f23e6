// React's hooks in a document without a browser.
import { Window } from "happy-dom";
import { createElement, useEffect } from "react";

const window = new Window({ url: "http://localhost/" });
// `fetch` and streams stay Node's own: happy-dom's would be a client of their own making.
Object.assign(globalThis, { window, document: window.document, sessionStorage: window.sessionStorage });
const { createRoot } = await import("react-dom/client");

/** Render a hook as a page does: `now` is what it answered last. */
export async function mount(useHook, options) {
  const root = createRoot(window.document.createElement("div"));
  const watchers = new Set();
  const page = { now: undefined, options, seen: [] };

  function Page(props) {
    page.now = useHook(props.options);
    useEffect(() => watchers.forEach((look) => look()));
    return null;
  }

  page.render = (changes = {}) => {
    page.options = { ...page.options, ...changes };
    root.render(createElement(Page, { options: page.options }));
  };
  page.unmount = () => root.unmount();
  /** The first true answer of `look`, which is asked after each rendering. */
  page.until = (look, milliseconds = 20000) => {
    const here = new Error();
    return new Promise((resolve, reject) => {
      const settle = (act, value) => {
        clearTimeout(timer);
        watchers.delete(check);
        act(value);
      };
      const check = () => {
        try {
          const found = page.now !== undefined && look(page.now);
          if (found) settle(resolve, found);
        } catch (error) {
          settle(reject, error);
        }
      };
      const late = () => {
        here.message = `waited in vain: ${look}\n${shown(page.now)}`;
        settle(reject, here);
      };
      const timer = setTimeout(late, milliseconds);
      watchers.add(check);
      check();
    });
  };
  page.render();
  await page.until((now) => now);
  return page;
}

function shown(page) {
  const { messages, interrupt, interrupts, isLoading, error, threadId } = page ?? {};
  const brief = messages?.map((one) => [one.type ?? one.getType?.(), JSON.stringify(one.content).slice(0, 300), one.tool_calls?.map((call) => call.name)]);
  return JSON.stringify({ messages: brief, interrupt, interrupts, isLoading, error: error && String(error), threadId }, null, 1);
}
