/** Uploads files, and shows the job of each upload live; all jobs share one connection. */
import { cancelJob, getJob, watchJob, type Job } from "@milepost/client";

interface Upload {
  id: number;
  name: string;
  job_id: string;
}

const list = document.querySelector<HTMLUListElement>("#uploads")!;
const input = document.querySelector<HTMLInputElement>("#file")!;

function show(upload: Upload): HTMLElement {
  const item = document.createElement("li");
  const [bar, text, cancel] = [
    document.createElement("progress"),
    document.createElement("span"),
    document.createElement("button"),
  ];
  bar.max = 1;
  cancel.textContent = "Cancel";
  cancel.onclick = () => void cancelJob(upload.job_id);
  item.append(`${upload.name} `, bar, " ", text, " ", cancel);
  watchJob(upload.job_id, {
    onChange(job: Job) {
      bar.value = job.progress;
      text.textContent = `${job.status} ${job.activity}`;
      cancel.hidden = job.status !== "pending" && job.status !== "running";
      if (job.status === "completed") void showResult(upload.job_id, text);
    },
    onMissing() {
      item.remove();
    },
  });
  return item;
}

async function showResult(id: string, text: HTMLElement): Promise<void> {
  const { result } = await getJob(id);
  text.textContent = `${(result as { words: number }).words} words`;
}

input.onchange = async () => {
  for (const file of input.files ?? []) {
    const answer = await fetch(`/uploads/${encodeURIComponent(file.name)}`, {
      method: "PUT",
      headers: { "Content-Type": "application/octet-stream" },
      body: file,
    });
    list.prepend(show((await answer.json()) as Upload));
  }
  input.value = "";
};

for (const upload of (await (await fetch("/uploads")).json()) as Upload[]) list.append(show(upload));
