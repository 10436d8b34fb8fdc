/** A confirmation of an action that cannot be undone. The focus is on the button that changes nothing. */
import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Dialog } from "./dialog";

interface Question {
  title: string;
  text: string;
  yes: string;
  no: string;
  act: () => void;
}

const question = signal<Question | null>(null);

export const confirm = (asked: Question): void => void (question.value = asked);

export function Confirm() {
  const asked = question.value;
  const no = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => no.current?.focus(), [asked]);
  if (asked === null) return null;
  const close = (): void => void (question.value = null);
  return (
    <Dialog title={asked.title} close={close}>
      <p>{asked.text}</p>
      <footer>
        <button ref={no} type="button" class="button" onClick={close}>
          {asked.no}
        </button>
        <button
          type="button"
          class="button strong"
          onClick={() => {
            close();
            asked.act();
          }}
        >
          {asked.yes}
        </button>
      </footer>
    </Dialog>
  );
}
