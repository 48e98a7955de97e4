// A heatmap of a histogram's buckets, which no Grafana package provides: cells coloured by the count of bucket and step.

import { getValueFormat } from '@grafana/data';

const AXIS = 70;
const LIGHT = ['#fff5eb', '#fdd0a2', '#fd8d3c', '#d94801', '#7f2704'];

/** Interpolates Grafana's colour scheme Oranges with the square root of the share, as the dashboards configure it. */
function color(share, dark) {
  const stops = dark ? [...LIGHT].reverse() : LIGHT;
  const place = Math.sqrt(share) * (stops.length - 1);
  const at = Math.min(Math.floor(place), stops.length - 2);
  const channel = (stop, from) => parseInt(stop.slice(from, from + 2), 16);
  const mix = (from) => Math.round(channel(stops[at], from) + (channel(stops[at + 1], from) - channel(stops[at], from)) * (place - at));
  return `rgb(${mix(1)},${mix(3)},${mix(5)})`;
}

/** Counts of the individual buckets; those of Prometheus are cumulative. */
function buckets({ result }) {
  const bound = (series) => Number(series.metric.le === '+Inf' ? Infinity : series.metric.le);
  const sorted = [...result].sort((a, b) => bound(a) - bound(b));
  return sorted.map((series, at) => {
    const below = new Map(sorted[at - 1]?.values ?? []);
    return { bound: bound(series), counts: series.values.map(([time, value]) => [time, Number(value) - Number(below.get(time) ?? 0)]) };
  });
}

export function Heatmap({ panel, results, width, height, from, to, theme }) {
  let rows = buckets(results);
  const filled = rows.map(({ counts }) => counts.some(([, count]) => count > 1e-9));
  const [first, last] = [filled.indexOf(true), filled.lastIndexOf(true)];
  rows = first < 0 ? rows : rows.slice(Math.max(first - 1, 0), last + 2);
  const highest = Math.max(...rows.flatMap(({ counts }) => counts.map(([, count]) => count)), 1e-9);
  const format = getValueFormat(panel.options.yAxis.unit);
  const shown = (bound) => { const { text, suffix } = format(bound, 1); return bound === Infinity ? '+Inf' : `${text}${suffix ?? ''}`; };
  const rowHeight = (height - 24) / rows.length;
  const cell = ((width - AXIS) * results.step * 1000) / (to - from);
  const left = (time) => AXIS + ((time * 1000 - from) / (to - from)) * (width - AXIS);
  const every = Math.ceil(16 / rowHeight);
  const top = (at) => (rows.length - 1 - at) * rowHeight;
  const hours = [0, 0.25, 0.5, 0.75].map((part) => from + part * (to - from));
  const style = { fill: theme.colors.text.secondary, fontSize: 11 };
  return <svg width={width} height={height}>
    {rows.map(({ bound, counts }, at) => <g key={at}>
      {at % every === 0 && <text x={AXIS - 6} y={top(at) + 4} textAnchor="end" style={style}>{shown(bound)}</text>}
      {counts.filter(([, count]) => count > 1e-9).map(([time, count]) =>
        <rect key={time} x={left(time)} y={top(at) + 0.5} width={Math.max(cell - 1, 1)} height={Math.max(rowHeight - 1, 1)} fill={color(count / highest, theme.isDark)} />)}
    </g>)}
    {hours.map((time) => <text key={time} x={left(time / 1000)} y={height - 6} style={style}>{new Date(time).toISOString().slice(11, 16)}</text>)}
  </svg>;
}
