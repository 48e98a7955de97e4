// The page: a dashboard's panels on Grafana's grid, drawn with Grafana's own components.

import { createRoot } from 'react-dom/client';
import {
  FieldType, ThemeContext, createDataFrame, createTheme, dateTime, getDisplayProcessor, getFieldDisplayName, reduceField,
  standardTransformers, standardTransformersRegistry, transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } from '@grafana/ui';
import { Heatmap } from './heatmap.jsx';

const { dashboard, found, from, to, theme: mode, width, line, values } = window.given;
const theme = createTheme({ colors: { mode } });
const GAP = 8;

standardTransformersRegistry.setInit(() =>
  [standardTransformers.mergeTransformer, standardTransformers.filterFieldsByNameTransformer, standardTransformers.organizeFieldsTransformer]
    .map((transformer) => ({ id: transformer.id, name: transformer.name, transformation: async () => transformer, editor: () => null })));

/** Name of a series according to the query's template. */
function legend(template, metric) {
  return template.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => metric[name] ?? '').trim();
}

/** Frames like those of Grafana's Prometheus source: one per series, or one table per query. */
function frames(panel) {
  return found[panel.id].flatMap(({ target, result, step }) => {
    if (target.format === 'table') {
      const labels = [...new Set(result.flatMap((series) => Object.keys(series.metric)))].sort();
      const many = panel.targets.length > 1;
      const fields = labels.map((name) => ({ name, type: FieldType.string, config: {}, values: result.map((series) => series.metric[name] ?? '') }));
      fields.push({ name: many ? `Value #${target.refId}` : 'Value', type: FieldType.number, config: {}, values: result.map((series) => Number(series.value[1])) });
      return result.length > 0 ? [createDataFrame({ refId: target.refId, fields })] : [];
    }
    return result.map((series) => {
      const points = series.values ?? [series.value];
      const at = new Map(points.map(([time, value]) => [Math.round(time), Number(value)]));
      const times = target.instant ? [...at.keys()] : Array.from({ length: Math.floor((to - from) / 1000 / step) + 1 }, (_, i) => from / 1000 + i * step);
      const name = legend(target.legendFormat, series.metric);
      return createDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, config: {}, values: times.map((time) => time * 1000) },
          { name: 'Value', type: FieldType.number, labels: series.metric, config: { displayNameFromDS: name || target.refId }, values: times.map((time) => at.get(Math.round(time)) ?? null) },
        ],
      });
    });
  });
}

/** Replaces Grafana's applyFieldOverrides, which needs the option registry of Grafana's server. */
function configure(panel, all) {
  const { defaults, overrides } = panel.fieldConfig ?? { defaults: {}, overrides: [] };
  let index = 0;
  for (const frame of all) {
    for (const field of frame.fields) {
      const name = getFieldDisplayName(field, frame, all);
      const isNumber = field.type === FieldType.number;
      field.config = { ...(isNumber ? { color: { mode: 'palette-classic' }, ...defaults } : { custom: defaults.custom }), ...field.config, custom: { ...defaults.custom } };
      for (const { matcher, properties } of overrides) {
        if (matcher.id === 'byName' ? matcher.options === name : new RegExp(matcher.options).test(name)) {
          for (const { id, value } of properties) if (id !== 'links') field.config[id] = value;
        }
      }
      if (isNumber) field.state = { ...field.state, seriesIndex: index++ };
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
    }
  }
  return all;
}

function Empty({ panel }) {
  return <div style={{ display: 'grid', placeItems: 'center', height: '100%', color: theme.colors.text.secondary }}>{panel.fieldConfig.defaults.noValue || 'No data'}</div>;
}

const lastOf = (field) => reduceField({ field, reducers: ['lastNotNull'] }).lastNotNull;

function Stats({ panel, data, width, height }) {
  const each = width / data.length;
  return <div style={{ display: 'flex' }}>{data.map((frame, at) => {
    const field = frame.fields[1];
    const display = { ...field.display(lastOf(field)), title: data.length > 1 ? getFieldDisplayName(field, frame, data) : undefined };
    const area = panel.options.graphMode === 'area' && field.values.length > 1;
    return <BigValue key={at} width={each} height={height} theme={theme} colorMode={panel.options.colorMode} graphMode={panel.options.graphMode}
      justifyMode="auto" textMode="auto" value={display} count={data.length}
      sparkline={area ? { y: field, x: frame.fields[0], timeRange: range() } : undefined} />;
  })}</div>;
}

function Bars({ data, width, height }) {
  const largest = Math.max(...data.map((frame) => lastOf(frame.fields[1])), 1);
  return <div>{data.map((frame, at) => {
    const field = frame.fields[1];
    field.config.max = largest;
    const value = { ...field.display(lastOf(field)), title: getFieldDisplayName(field, frame, data) };
    return <div key={at} style={{ marginBottom: 6 }}><BarGauge width={width} height={Math.min(height / data.length - 6, 40)} theme={theme} value={value} field={field.config}
      display={field.display} orientation="horizontal" displayMode="basic" showUnfilled /></div>;
  })}</div>;
}

const range = () => ({ from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } });

/** The subset of Markdown that the text panels use: bold, code and tables. */
function Markdown({ text }) {
  const inline = (words) => words.split('`').map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part));
  return <div style={{ padding: 8 }}>{text.split('\n\n').map((block, at) => {
    const rows = block.split('\n');
    if (!rows[0].startsWith('|')) return <p key={at}>{inline(block)}</p>;
    const cells = rows.filter((_, n) => n !== 1).map((row) => row.split('|').slice(1, -1));
    return <table key={at} style={{ width: '100%', marginBottom: 8 }}><tbody>{cells.map((row, n) =>
      <tr key={n}>{row.map((cell, m) => <td key={m} style={{ padding: '2px 8px', fontWeight: n ? 400 : 600 }}>{inline(cell)}</td>)}</tr>)}</tbody></table>;
  })}</div>;
}

function Content({ panel, data, width, height }) {
  if (panel.type === 'text') return <Markdown text={panel.options.content} />;
  if (data.length === 0) return <Empty panel={panel} />;
  const sized = { panel, data, width, height };
  switch (panel.type) {
    case 'timeseries':
      return <TimeSeries width={width} height={height} frames={data} timeRange={range()} timeZone="utc" structureRev={1} legend={panel.options.legend} options={panel.options} />;
    case 'stat':
      return <Stats {...sized} />;
    case 'bargauge':
      return <Bars {...sized} />;
    case 'table':
      return <Table width={width} height={height} data={data[0]} timeRange={range()} initialSortBy={panel.options.sortBy} />;
    case 'heatmap':
      return <Heatmap {...sized} results={found[panel.id][0]} from={from} to={to} theme={theme} />;
    default:
      return <div>{panel.type} is not drawn here</div>;
  }
}

function Panel({ panel, data }) {
  const cell = (width - GAP) / 24;
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: GAP + x * cell, top: 60 + y * line, width: w * cell - GAP, height: h * line - GAP };
  if (panel.type === 'row') return <h4 style={{ ...place, margin: 0, paddingTop: 6 }}>{panel.title}</h4>;
  return <div style={place}><PanelChrome width={place.width} height={place.height} title={panel.title} description={panel.description}>
    {(width, height) => <Content panel={panel} data={data} width={width} height={height} />}
  </PanelChrome></div>;
}

function transformed(panel) {
  const all = frames(panel);
  if (!panel.transformations || all.length === 0) return Promise.resolve(configure(panel, all));
  return new Promise((done) => transformDataFrame(panel.transformations, all).subscribe((result) => done(configure(panel, result))));
}

Promise.all(dashboard.panels.map(transformed)).then((all) => {
  const shown = Object.entries(values).map(([name, value]) => `${name}: ${value === '.*' ? 'All' : value}`).join('   ');
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', background: theme.colors.background.canvas, color: theme.colors.text.primary, minHeight: '100vh' }}>
        <h3 style={{ position: 'absolute', left: 12, top: 10, margin: 0 }}>{dashboard.title}</h3>
        <div style={{ position: 'absolute', right: 12, top: 18 }}>{shown}</div>
        {dashboard.panels.map((panel, at) => <Panel key={panel.id} panel={panel} data={all[at]} />)}
      </div>
    </ThemeContext.Provider>,
  );
});
