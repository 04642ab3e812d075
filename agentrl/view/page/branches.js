// Branches as a tree: the members of a group as paths over their steps, a shared step drawn once.

import { h, svg } from "./dom.js";
import { number, outcomeWords, plural, signed } from "./format.js";
import { advantageEnd } from "./group.js";
import { routeTo } from "./route.js";

const TREE = { left: 16, row: 34, radius: 6, widest: 30, narrowest: 12, label: 190 };

export function branchTree(app, episode, run) {
  const tree = mergedPaths(episode.group);
  const shared = tree.nodes.filter((node) => node.members.length > 1).length;
  return h(
    "div",
    { class: "branches" },
    h(
      "p",
      { class: "dim" },
      shared
        ? `${plural(episode.group.length, "episode")} of one task over ${plural(tree.nodes.length, "step")}, ${shared} of them shared and drawn once. Colour is the mean advantage of a step: blue up, orange down, hollow not trained on.`
        : `${plural(episode.group.length, "episode")} of one task; none shares a step with another.`,
    ),
    h("div", { class: "scroller" }, drawTree(app, episode, tree, run)),
  );
}

// Steps by id, each under the one before it. A path keeps its parent's row as long as it is the first to go on from it.
function mergedPaths(members) {
  const nodes = new Map();
  const ends = members.map((member, row) => {
    let parent = null;
    member.step_ids.forEach((id, depth) => {
      const node = nodes.get(id) ?? { id, depth, row, parent, members: [], advantage: null };
      node.members.push(member);
      node.advantage ??= member.step_advantages[depth] ?? null;
      nodes.set(id, node);
      parent = node;
    });
    return { member, row, node: parent };
  });
  return { nodes: [...nodes.values()], ends };
}

function drawTree(app, episode, tree, run) {
  const depth = Math.max(1, ...tree.nodes.map((node) => node.depth + 1));
  const gap = Math.max(TREE.narrowest, Math.min(TREE.widest, 820 / depth));
  const across = (node) => TREE.left + (node ? (node.depth + 1) * gap : 0);
  const down = (row) => TREE.row * (row + 0.7);
  const [width, height] = [TREE.left + (depth + 1) * gap + TREE.label, down(tree.ends.length - 1) + TREE.row * 0.7];
  const end = advantageEnd(episode.group);
  const middle = (tree.ends.length - 1) / 2;
  const root = { depth: -1, row: middle };
  const edges = tree.nodes.map((node) => {
    const from = node.parent ?? root;
    const [x1, y1, x2, y2] = [TREE.left + (from.depth + 1) * gap, down(from.row), across(node), down(node.row)];
    const bend = y1 === y2 ? `L${x2},${y2}` : `C${(x1 + x2) / 2},${y1} ${(x1 + x2) / 2},${y2} ${x2},${y2}`;
    return svg("path", {
      class: `edge${node.members.some((member) => member.id === episode.line.id) ? " here" : ""}`,
      d: `M${x1},${y1}${bend}`,
    });
  });
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Tree of branches" },
    edges,
    svg(
      "rect",
      { class: "root", x: TREE.left - 5, y: down(middle) - 5, width: 10, height: 10 },
      svg("title", {}, "task"),
    ),
    tree.nodes.map((node) => treeNode(app, node, across(node), down(node.row), end, run)),
    tree.ends.map((leaf) => treeLabel(app, leaf, across(leaf.node) + 14, down(leaf.row) + 4, episode.line.id, run)),
  );
}

function treeNode(app, node, x, y, end, run) {
  const side =
    node.advantage === null ? "untrained" : node.advantage > 0 ? "plus" : node.advantage < 0 ? "minus" : "zero";
  const words = `step ${node.depth + 1}${node.members.length > 1 ? `, shared by ${node.members.length}` : ""}, ${node.advantage === null ? "not trained on" : `advantage ${signed(node.advantage)}`}`;
  const circle = svg(
    "circle",
    {
      class: `node ${side}`,
      cx: x,
      cy: y,
      r: node.members.length > 1 ? TREE.radius + 1.5 : TREE.radius,
      vars: { "--w": (Math.abs(node.advantage ?? 0) / end).toFixed(3) },
    },
    svg("title", {}, words),
  );
  const owner = node.members.find((member) => app.source.opens(member.id, run));
  return owner
    ? svg("a", { href: routeTo("episode", owner.id, { step: node.depth + 1, run }), "aria-label": words }, circle)
    : circle;
}

function treeLabel(app, { member }, x, y, current, run) {
  const { label, mark, tone } = outcomeWords(member.outcome);
  const words = svg(
    "text",
    { class: `leaf ${tone}${member.id === current ? " here" : ""}`, x, y },
    `${mark} ${label}, ${number(member.reward)}`,
    svg("title", {}, member.id),
  );
  return app.source.opens(member.id, run)
    ? svg("a", { href: routeTo("episode", member.id, { view: "branches", run }), "data-open": true }, words)
    : words;
}
