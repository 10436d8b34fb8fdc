/** A modal dialog of the browser, which keeps the focus, restores it, and closes on Escape. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useId, useRef } from "preact/hooks";
import { Cross } from "./icons";

interface Props {
  title: string;
  close: () => void;
  children: ComponentChildren;
  bare?: boolean;
}

export function Dialog({ title, close, children, bare = false }: Props) {
  const box = useRef<HTMLDialogElement>(null);
  const id = useId();
  // Before the next key is read: keys that are typed fast must find the dialog, not the page below it.
  useLayoutEffect(() => {
    const dialog = box.current;
    if (dialog === null || dialog.open) return;
    dialog.showModal();
    dialog.querySelector<HTMLElement>("form :is(input, select, textarea)")?.focus(); // rather than the close button
  }, []);
  return (
    <dialog
      ref={box}
      class={bare ? "palette" : ""}
      aria-labelledby={id}
      onClose={close}
      onClick={(event) => {
        if (event.target === box.current) box.current?.close();
      }}
    >
      <header class={bare ? "unseen" : ""}>
        <h1 id={id}>{title}</h1>
        {!bare && (
          <button type="button" class="icon-button" aria-label="Close" onClick={() => box.current?.close()}>
            <Cross />
          </button>
        )}
      </header>
      {children}
    </dialog>
  );
}
