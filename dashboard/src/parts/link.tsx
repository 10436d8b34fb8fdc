/** A link to a view of this page: it can be opened in any tab, and is followed here without a reload. */
import type { ComponentChildren } from "preact";
import { go, href, place, type Place } from "../shell/address";

interface Props {
  to: Partial<Place>;
  title?: string;
  children: ComponentChildren;
  "aria-current"?: "page" | undefined;
  class?: string;
  "aria-label"?: string;
}

export function Link({ to, children, ...rest }: Props) {
  void place.value;
  return (
    <a
      {...rest}
      href={href(to)}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
        event.preventDefault();
        go(to);
      }}
    >
      {children}
    </a>
  );
}
