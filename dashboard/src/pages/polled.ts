/** What a page asks for again and again while it is looked at, and after the feed had a gap. */
import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { listen } from "../live/feed";
import { get, Problem } from "../wire/api";

export interface Polled<T> {
  value: Signal<T | null>;
  problem: Signal<Problem | null>;
  again: () => Promise<void>;
}

export function usePolled<T>(path: string, parameters: Record<string, string>, every: number): Polled<T> {
  const key = JSON.stringify([path, parameters]);
  const polled = useMemo<Polled<T>>(() => {
    const value = signal<T | null>(null);
    const problem = signal<Problem | null>(null);
    const again = async (): Promise<void> => {
      try {
        value.value = await get<T>(path, parameters);
        problem.value = null;
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        problem.value = error;
      }
    };
    return { value, problem, again };
  }, [key]);
  useEffect(() => {
    void polled.again();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void polled.again();
    }, every);
    const stop = listen({ batch: () => undefined, anew: () => void polled.again() });
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [polled, every]);
  return polled;
}
