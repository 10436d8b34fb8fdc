/** The header of every page: brand, filter, pages, live indicator, theme, help. */
import { computed } from "@preact/signals";
import { counts } from "../live/feed";
import { HalfMoon, Lines, Mark } from "../parts/icons";
import { Link } from "../parts/link";
import { page, pageAt, type PageName } from "./address";
import { FilterField } from "./filter";
import { helpOpen } from "./help";
import { LivePill } from "./live";
import { hasDocuments, isAdmin, session, signOut } from "./session";
import { theme, nextTheme } from "./theme";

const PAGES: readonly (readonly [PageName, string])[] = [
  ["jobs", "Jobs"],
  ["failures", "Failures"],
  ["overview", "Overview"],
  ["types", "Types"],
  ["schedules", "Schedules"],
  ["usage", "Usage"],
  ["workers", "Workers"],
  ["documents", "Documents"],
];

const canSignOut = computed(() => session.value?.auth === "keys" && session.value.id !== "share");

/** Whether a page is of use: workers to administrators, documents where some were ingested. */
function shown(name: PageName): boolean {
  if (name === "documents") return page.value === name || (hasDocuments.value && counts.value?.["ingestion"] !== undefined);
  return name !== "workers" || isAdmin.value || session.value === null;
}

function Pages() {
  return (
    <>
      {PAGES.filter(([name]) => shown(name)).map(([name, title]) => (
        <Link key={name} to={pageAt(name)} aria-current={page.value === name ? "page" : undefined}>
          {title}
        </Link>
      ))}
    </>
  );
}

export function Top() {
  return (
    <header class="top">
      <Link to={pageAt("jobs", { q: "", tab: "all" })} class="brand" aria-label="milepost">
        <Mark />
        <span>milepost</span>
      </Link>
      <FilterField />
      <nav class="where" aria-label="Pages">
        <Pages />
      </nav>
      <LivePill />
      <button
        type="button"
        class="icon-button theme-button"
        aria-label={`Theme: ${theme.value}`}
        title={`Theme: ${theme.value} (t)`}
        onClick={nextTheme}
      >
        <HalfMoon />
      </button>
      <button type="button" class="icon-button help-button" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick={() => (helpOpen.value = true)}>
        ?
      </button>
      <div class="menu">
        <button type="button" class="icon-button" aria-label="Pages" popovertarget="pages">
          <Lines />
        </button>
        <nav
          class="where"
          id="pages"
          popover="auto"
          aria-label="All pages"
          onClick={(event) => event.currentTarget.hidePopover()}
        >
          <Pages />
          <button type="button" class="button plain only-phone" onClick={nextTheme}>
            Theme: {theme.value}
          </button>
          <button type="button" class="button plain only-phone" onClick={() => (helpOpen.value = true)}>
            Keyboard shortcuts
          </button>
          {canSignOut.value && (
            <button type="button" class="button plain only-phone" onClick={() => void signOut()}>
              Sign out
            </button>
          )}
        </nav>
      </div>
      {canSignOut.value && (
        <button type="button" class="button plain sign-out" onClick={() => void signOut()}>
          Sign out
        </button>
      )}
    </header>
  );
}
