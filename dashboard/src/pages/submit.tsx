/** A form for the schema of a type's parameters. Parameters without a matching field are entered as JSON. */
import { useSignal } from "@preact/signals";
import { go, pageAt } from "../shell/address";
import { showToast } from "../shell/toasts";
import { call, Problem } from "../wire/api";
import type { JobRecord, JobType } from "../wire/types";
import { fieldsOf, valueOf, type Field } from "./schema";

export function SubmitForm({ type }: { type: JobType }) {
  const fields = fieldsOf(type.schema as Record<string, unknown>, (type["secrets"] as string[] | undefined) ?? []);
  const values = useSignal<Record<string, string>>({});
  const wrong = useSignal<string | null>(null);
  const busy = useSignal(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    wrong.value = null;
    const params: Record<string, unknown> = {};
    try {
      for (const field of fields) {
        const value = valueOf(field, values.value[field.name]);
        if (value !== undefined) params[field.name] = value;
      }
    } catch (error) {
      wrong.value = (error as Error).message;
      return;
    }
    busy.value = true;
    try {
      const made = await call<JobRecord>("POST", "jobs", { body: { job_type: type.name, params } });
      showToast("Submitted", { seconds: 3 });
      go(pageAt("jobs", { job: made.job_id, q: "", tab: "all" }));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      wrong.value = error.detail;
    } finally {
      busy.value = false;
    }
  };
  return (
    <form class="form" onSubmit={(event) => void submit(event)} noValidate={false}>
      {type.doc !== "" && <p class="muted">{type.doc.split("`").map((text, at) => (at % 2 === 1 ? <code>{text}</code> : text))}</p>}
      {fields.length === 0 && <p class="muted">It takes no parameters.</p>}
      {fields.map((field) => (
        <FieldView
          key={field.name}
          field={field}
          value={values.value[field.name] ?? field.initial}
          set={(value) => (values.value = { ...values.value, [field.name]: value })}
        />
      ))}
      {wrong.value !== null && (
        <p class="problem" role="alert">
          {wrong.value}
        </p>
      )}
      <footer>
        <button type="submit" class="button strong" disabled={busy.value}>
          Submit
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

export function FieldView({ field, value, set }: { field: Field; value: string; set: (value: string) => void }) {
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
