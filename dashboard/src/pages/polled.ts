/** Data that a page requests at intervals while it is visible, and after a gap of the feed. */
import { batch, signal, type Signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { listen } from "../live/feed";
import { get, Problem } from "../wire/api";

export interface Polled<T> {
  value: Signal<T | null>;
  problem: Signal<Problem | null>;
  /** When the value was read, by this machine's clock. */
  at: Signal<number>;
  again: () => Promise<void>;
}

export function usePolled<T>(path: string, parameters: Record<string, string>, every: number): Polled<T> {
  const key = JSON.stringify([path, parameters]);
  const polled = useMemo<Polled<T>>(() => {
    const value = signal<T | null>(null);
    const problem = signal<Problem | null>(null);
    const at = signal(0);
    const again = async (): Promise<void> => {
      try {
        const found = await get<T>(path, parameters);
        batch(() => {
          value.value = found;
          at.value = Date.now();
          problem.value = null;
        });
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        problem.value = error;
      }
    };
    return { value, problem, at, again };
  }, [key]);
  useEffect(() => {
    // A read under way is waited for: a store that hangs would else use up the browser's connections.
    let reading = false;
    const read = (): void => {
      reading = true;
      void polled.again().finally(() => (reading = false));
    };
    read();
    const timer = setInterval(() => {
      if (!reading && document.visibilityState === "visible") read();
    }, every);
    const stop = listen({ batch: () => undefined, onRestart: () => void polled.again() });
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [polled, every]);
  return polled;
}
