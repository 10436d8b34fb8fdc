/** The theme: light, dark, or that of the system; stored in this browser. */
import { computed, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const NAME = "milepost theme";

function kept(): Theme {
  try {
    const value = localStorage.getItem(NAME);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system"; // storage may be forbidden
  }
}

export const theme = signal<Theme>(kept());

const system = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(system.matches);
system.addEventListener("change", () => (systemDark.value = system.matches));

/** Whether the page is dark now, for canvases, which do not follow the theme by themselves. */
export const dark = computed(() => (theme.value === "system" ? systemDark.value : theme.value === "dark"));

theme.subscribe((value) => {
  if (value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = value;
  try {
    localStorage.setItem(NAME, value);
  } catch {
    // then it lasts for this visit
  }
});

/** The next theme; after that of the system, the opposite one. */
export function nextTheme(): void {
  const turns: Theme[] = system.matches ? ["system", "light", "dark"] : ["system", "dark", "light"];
  theme.value = turns[(turns.indexOf(theme.value) + 1) % 3] ?? "system";
}
