/** The rows of a long list that are in the document: the virtual list of TanStack, rendered by Preact. */
import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
import type { RefObject } from "preact";
import { useLayoutEffect, useReducer, useRef } from "preact/hooks";

type Window = Virtualizer<HTMLElement, HTMLElement>;

export function useWindow(scroll: RefObject<HTMLElement | null>, count: number, height: number, head: number): Window {
  const [, redraw] = useReducer<number, undefined>((drawn) => drawn + 1, 0);
  const held = useRef<Window | null>(null);
  const options = {
    count,
    getScrollElement: () => scroll.current,
    estimateSize: () => height,
    overscan: 6,
    scrollPaddingStart: head,
    paddingStart: head,
    observeElementRect,
    observeElementOffset,
    scrollToFn: elementScroll,
    onChange: () => redraw(undefined),
  };
  const virtual = (held.current ??= new Virtualizer<HTMLElement, HTMLElement>(options));
  virtual.setOptions(options);
  useLayoutEffect(() => virtual._didMount(), []);
  useLayoutEffect(() => virtual._willUpdate());
  return virtual;
}
