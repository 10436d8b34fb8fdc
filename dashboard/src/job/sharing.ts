/** A link to one job for a person without a key. */
import { copy } from "../parts/copyable";
import { attempt } from "../shell/action";
import { localTime } from "../text/time";
import { call, jobPath } from "../wire/api";
import type { Share } from "../wire/types";

export async function share(id: string): Promise<void> {
  await attempt(async () => {
    const made = await call<Share>("POST", jobPath(id, "/share"), { body: {} });
    const link = new URL(location.pathname, location.href);
    link.searchParams.set("page", "job");
    link.searchParams.set("job", id);
    link.searchParams.set("share", made.token);
    await copy(link.href, `Link copied; it shows this job until ${localTime(made.expires_at)}`);
  });
}
