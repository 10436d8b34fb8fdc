/** The form that submits a job of a type. */
import { go, pageAt } from "../shell/address";
import { showToast } from "../shell/toasts";
import { call } from "../wire/api";
import type { JobRecord, JobType } from "../wire/types";
import { FieldsForm } from "./form";
import { fieldsOf } from "./schema";

export function SubmitForm({ type }: { type: JobType }) {
  const fields = fieldsOf(type.schema as Record<string, unknown>, (type["secrets"] as string[] | undefined) ?? []);
  const send = async (params: Record<string, unknown>): Promise<void> => {
    const made = await call<JobRecord>("POST", "jobs", { body: { job_type: type.name, params } });
    showToast("Submitted", { seconds: 3 });
    go(pageAt("jobs", { job: made.job_id, q: "", tab: "all" }));
  };
  return (
    <FieldsForm fields={fields} send={send} button="Submit">
      {type.doc !== "" && <p class="muted">{type.doc.split("`").map((text, at) => (at % 2 === 1 ? <code>{text}</code> : text))}</p>}
      {fields.length === 0 && <p class="muted">It takes no parameters.</p>}
    </FieldsForm>
  );
}
