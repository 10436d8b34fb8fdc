/** The question that a job asks, as a form made from its JSON schema. */
import { FieldsForm } from "../pages/form";
import { fieldsOf } from "../pages/schema";
import { mayAnswer } from "../shell/session";
import { showToast } from "../shell/toasts";
import { plain } from "../text/plain";
import { localTime, utcTime } from "../text/time";
import { call, jobPath } from "../wire/api";
import { isEnded, type JobRecord } from "../wire/types";
import { reload } from "./record";

export interface Question {
  key: string;
  prompt: string;
  json_schema: Record<string, unknown> | null;
  state: "early" | "open" | "answered" | "default" | "expired";
  expires_at: string | null;
  answer: unknown;
  answered_at: string | null;
  answered_by: string | null;
}

/** The name of the only field of an answer that is no object. */
const WHOLE = "answer";

export function Questions({ shown }: { shown: JobRecord }) {
  const all = Array.isArray(shown.questions) ? (shown.questions as unknown as Question[]) : [];
  return (
    <>
      {all.map((question) =>
        question.state === "open" && !isEnded(shown.status) ? (
          <QuestionForm key={question.key} id={shown.job_id} question={question} />
        ) : (
          <Answered key={question.key} question={question} />
        ),
      )}
    </>
  );
}

function Answered({ question }: { question: Question }) {
  const at = question.answered_at;
  return (
    <section class="section" aria-label={`Question ${question.key}`}>
      <h2>{plain(question.prompt === "" ? question.key : question.prompt)}</h2>
      <p class="muted">
        {question.state === "expired" || question.state === "open"
          ? "Not answered"
          : question.state === "default"
            ? "Expired; the job continued with its default: "
            : "Answered: "}
        {question.state !== "expired" && question.state !== "open" && <code>{plain(JSON.stringify(question.answer))}</code>}
        {question.answered_by !== null && ` by ${plain(question.answered_by)}`}
        {at !== null && <span title={utcTime(at)}> {localTime(at)}</span>}
      </p>
    </section>
  );
}

function QuestionForm({ id, question }: { id: string; question: Question }) {
  const schema = question.json_schema ?? {};
  const isObject = schema["properties"] !== undefined;
  const fields = fieldsOf(
    isObject ? schema : { $defs: schema["$defs"], properties: { [WHOLE]: schema }, required: [WHOLE] },
    [],
  );
  const send = async (values: Record<string, unknown>): Promise<void> => {
    await call<JobRecord>("POST", `${jobPath(id)}/answers`, {
      body: { key: question.key, value: isObject ? values : values[WHOLE] },
    });
    showToast("Answered", { seconds: 3 });
    await reload();
  };
  return (
    <FieldsForm
      class="form question"
      label={`Question ${question.key}`}
      fields={fields}
      send={send}
      button="Answer"
      disabled={!mayAnswer.value}
    >
      <h2>{plain(question.prompt)}</h2>
      {question.expires_at !== null && (
        <p class="muted small">
          Expires <span title={utcTime(question.expires_at)}>{localTime(question.expires_at)}</span>
        </p>
      )}
    </FieldsForm>
  );
}
