/** The entry point of the page. */
import { render } from "preact";
import "./style/tokens.css";
import "./style/shell.css";
import "./style/list.css";
import "./style/job.css";
import "./style/pages.css";
import { App } from "./app";
import { start as startJob } from "./job/record";
import { start as startList } from "./jobs/list";
import { follow } from "./live/feed";
import { startKeys } from "./shell/keys";
import { enterByLink, readSession } from "./shell/session";

function start(): void {
  void readSession();
  startList();
  startJob();
  follow();
  startKeys();
  render(<App />, document.getElementById("app") as HTMLElement);
}

// Parts of the page send requests as soon as they are shown, so the page begins after the sign-in by link.
void enterByLink().finally(start);
