// SPDX-License-Identifier: MIT
// Tables whose heads sort them: real tables, with buttons in their heads and aria-sort on them.
//
// columns: { key, name, title, number, text: row => string, value: row => to sort by, cell: row => node, head: true }

function table(caption, columns, rows, { sort = null, tall = false, attributes = () => ({}) } = {}) {
  let order = sort && { key: sort, down: false };
  const head = element('tr'), body = element('tbody');
  const value = (c, row) => c.value ? c.value(row) : row[c.key];

  function cell(c, row) {
    const v = value(c, row);
    const made = element(c.head ? 'th' : 'td', {
      scope: c.head ? 'row' : null, class: c.number ? 'number' : c.cell ? null : 'text', 'data-column': c.key,
      'data-value': typeof v === 'number' && !Number.isNaN(v) ? v : null,
    });
    if (c.cell) made.append(c.cell(row));
    else {
      made.textContent = c.text ? c.text(row) : c.number ? number(v) : missing(v) ? '–' : String(v);
      if (!c.number && made.textContent.length > 24) made.title = made.textContent;
    }
    return made;
  }

  function fill() {
    const c = order && columns.find(one => one.key === order.key);
    const sorted = rows.slice();
    if (c) {
      sorted.sort((x, y) => {
        const a = value(c, x), b = value(c, y);
        if (missing(a) || missing(b)) return missing(a) - missing(b); // what isn't there comes last, either way
        const by = typeof a === 'number' ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
        return order.down ? -by : by;
      });
    }
    replace(body, ...sorted.map(row => element('tr', attributes(row), ...columns.map(one => cell(one, row)))));
    columns.forEach((one, i) => {
      if (order && one.key === order.key) head.children[i].setAttribute('aria-sort', order.down ? 'descending' : 'ascending');
      else head.children[i].removeAttribute('aria-sort');
    });
  }

  for (const c of columns) {
    const th = element('th', { scope: 'col', class: c.number ? 'number' : null, title: c.title, 'data-column': c.key });
    if (c.plain) th.textContent = c.name;
    else {
      th.append(element('button', { type: 'button', text: c.name, on: { click: () => {
        order = { key: c.key, down: order && order.key === c.key ? !order.down : false };
        fill();
      } } }));
    }
    head.append(th);
  }
  const made = element('table', {}, element('caption', { text: caption }), element('thead', {}, head), body);
  fill();
  const box = element('div', { class: tall ? 'scroll tall' : 'scroll', role: 'region', 'aria-label': caption, tabindex: '0' }, made);
  return { box, show(more) { rows = more; fill(); } };
}
