/** Where it begins. */
import { render } from "preact";
import "./style/tokens.css";
import "./style/shell.css";
import "./style/list.css";
import "./style/job.css";
import "./style/pages.css";
import { App } from "./app";
import { start as startJob } from "./job/watched";
import { start as startList } from "./jobs/list";
import { follow } from "./live/feed";
import { startKeys } from "./shell/keys";
import { readSession } from "./shell/session";

void readSession();
startList();
startJob();
follow();
startKeys();
render(<App />, document.getElementById("app") as HTMLElement);
