/** Text with a copy button. */
import { showToast } from "../shell/toasts";

export async function copy(text: string, what = "Copied"): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    showToast(what, { seconds: 2 });
  } catch {
    // A page that is not served securely has no clipboard API, but the old command works.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    showToast(done ? what : "This browser does not let the page copy", { seconds: 3 });
  }
}

export function CodeHolder({ text, label }: { text: string; label: string }) {
  return (
    <div class="holder">
      <button type="button" class="button" aria-label={label} onClick={() => void copy(text)}>
        Copy
      </button>
      <pre class="well" tabIndex={0}>
        {text}
      </pre>
    </div>
  );
}
