/** The chart of finished jobs, drawn by uPlot, which is loaded with this page. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { dark } from "../shell/theme";
import { clockTime, dayOf, formatCount } from "../text/time";

export interface Step {
  at: string;
  completed: number;
  failed: number;
  cancelled: number;
}

const HEIGHT = 168;

export function Throughput({ steps }: { steps: readonly Step[] }) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const look = dark.value;
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const made = (chart.current = new uPlot(options(element), columns(steps), element));
    const grown = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    grown.observe(element);
    return () => {
      grown.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, [look]);
  useEffect(() => chart.current?.setData(columns(steps)), [steps]);
  const sum = (name: "completed" | "failed"): string => formatCount(steps.reduce((all, step) => all + step[name], 0));
  return (
    <figure>
      <div ref={box} class="chart" role="img" aria-label={`Finished over time: ${sum("completed")} completed, ${sum("failed")} failed`} />
      <figcaption class="small muted">
        {sum("completed")} completed, {sum("failed")} failed
      </figcaption>
    </figure>
  );
}

function columns(steps: readonly Step[]): uPlot.AlignedData {
  return [
    steps.map((step) => Date.parse(step.at) / 1000),
    // Stacked: the series at the back is the sum.
    steps.map((step) => step.completed + step.failed),
    steps.map((step) => step.failed),
  ];
}

/** The first hour of a day is labelled with its date, because hours alone are ambiguous in a week. */
function isMidnight(seconds: number): boolean {
  const at = new Date(seconds * 1000);
  return at.getHours() === 0 && at.getMinutes() === 0;
}

/** A bar covers one step after its time, so the newest bar needs space after the last time. */
function wholeSteps(plot: uPlot, from: number, to: number): uPlot.Range.MinMax {
  const [first, second] = plot.data[0];
  return [from, to + (first !== undefined && second !== undefined ? second - first : 60)];
}

function options(element: HTMLElement): uPlot.Options {
  // A canvas supports neither custom properties nor light-dark(), so the computed colours are read.
  const colour = (name: string): string => {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`;
    element.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  };
  const time = (_: uPlot, splits: number[], __: number, ___: number, step: number): string[] =>
    splits.map((at) => (step < 86_400 && !isMidnight(at) ? clockTime(at * 1000).slice(0, 5) : dayOf(at)));
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const bars = uPlot.paths.bars?.({ size: [0.8, 24], align: 1 });
  const series = (label: string, name: string): uPlot.Series => ({
    label,
    fill: colour(name),
    stroke: colour(name),
    width: 0,
    points: { show: false },
    ...(bars === undefined ? {} : { paths: bars }),
  });
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { range: wholeSteps }, y: { range: (_, __, most) => [0, Math.max(1, most)] } },
    axes: [{ ...axis, values: time, size: 28 }, { ...axis, size: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000] }],
    series: [{}, series("Completed", "completed"), series("Failed", "failed")],
  };
}
