/** A form with a field for each property of a JSON schema. Properties without a matching field are entered as JSON. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { errorText, Problem } from "../wire/api";
import { valueOf, type Field } from "./schema";

interface Props {
  fields: Field[];
  /** Sends the values by field name; the detail of a Problem is shown below the fields. */
  send: (values: Record<string, unknown>) => Promise<void>;
  button: string;
  disabled?: boolean;
  class?: string;
  label?: string;
  children?: ComponentChildren;
}

export function FieldsForm({ fields, send, button, disabled = false, class: name = "form", label, children }: Props) {
  const typed = useSignal<Record<string, string>>({});
  const wrong = useSignal<string | null>(null);
  const busy = useSignal(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    wrong.value = null;
    const values: Record<string, unknown> = {};
    try {
      for (const field of fields) {
        const value = valueOf(field, typed.value[field.name]);
        if (value !== undefined) values[field.name] = value;
      }
    } catch (error) {
      wrong.value = errorText(error);
      return;
    }
    busy.value = true;
    try {
      await send(values);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      wrong.value = error.detail;
    } finally {
      busy.value = false;
    }
  };
  return (
    <form class={name} onSubmit={(event) => void submit(event)} aria-label={label}>
      {children}
      {fields.map((field) => (
        <FieldView
          key={field.name}
          field={field}
          value={typed.value[field.name] ?? field.initial}
          set={(value) => (typed.value = { ...typed.value, [field.name]: value })}
        />
      ))}
      {wrong.value !== null && (
        <p class="problem" role="alert">
          {wrong.value}
        </p>
      )}
      <footer>
        <button type="submit" class="button strong" disabled={busy.value || disabled}>
          {button}
        </button>
      </footer>
    </form>
  );
}

/** The input field of the browser for each kind. */
const INPUTS: Partial<Record<Field["kind"], object>> = {
  text: { type: "text" },
  secret: { type: "password" },
  time: { type: "datetime-local" },
  whole: { type: "number", step: 1 },
  number: { type: "number", step: "any" },
};

function FieldView({ field, value, set }: { field: Field; value: string; set: (value: string) => void }) {
  const name = (
    <span>
      {field.name}
      {field.required ? "" : <span class="muted small"> optional</span>}
    </span>
  );
  if (field.kind === "boolean") {
    return (
      <label class="check">
        <input type="checkbox" checked={value === "true"} onChange={(event) => set(String(event.currentTarget.checked))} />
        {name}
      </label>
    );
  }
  return (
    <label>
      {name}
      {field.kind === "choice" ? (
        <select class="field" value={value} required={field.required} onChange={(event) => set(event.currentTarget.value)}>
          {!field.required && <option value="" />}
          {field.choices.map((choice) => (
            <option key={choice} value={choice}>
              {choice}
            </option>
          ))}
        </select>
      ) : field.kind === "json" ? (
        <textarea class="field mono" required={field.required} placeholder={field.hint} value={value} onInput={(event) => set(event.currentTarget.value)} />
      ) : (
        <input
          class="field"
          {...(INPUTS[field.kind] as { type: "text" })}
          autocomplete="off"
          required={field.required}
          placeholder={field.hint}
          value={value}
          onInput={(event) => set(event.currentTarget.value)}
        />
      )}
      {field.description !== "" && <span class="muted small">{field.description}</span>}
    </label>
  );
}
