//! The live screen: drawn when there is something new, until somebody leaves.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Sparkline, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::watch;

use super::rows;
use super::shown::Shown;
use crate::cli::output::printable;
use crate::vitals::series::Point;

/// How long a key may wait to be seen.
const KEY_WAIT: Duration = Duration::from_millis(100);

type Readings = watch::Receiver<Result<Shown, String>>;

/// Shows what is read until `q`, Esc or Ctrl-C. `choice` is told which mesh
/// is looked at.
pub(super) fn run(
    address: &str,
    readings: &Readings,
    choice: &watch::Sender<Option<String>>,
) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, address, readings.clone(), choice);
    ratatui::restore();
    Ok(ended?)
}

/// What is on the screen.
struct View {
    last: Option<Shown>,
    problem: Option<String>,
    meshes: TableState,
    in_mesh: bool,
}

enum Next {
    Stay,
    Leave,
}

fn show(
    terminal: &mut DefaultTerminal,
    address: &str,
    mut readings: Readings,
    choice: &watch::Sender<Option<String>>,
) -> io::Result<()> {
    let in_mesh = choice.borrow().is_some();
    let meshes = TableState::default().with_selected(Some(0));
    let mut view = View { last: None, problem: None, meshes, in_mesh };
    readings.mark_changed();
    loop {
        let is_new = readings.has_changed().unwrap_or(false);
        if is_new {
            match &*readings.borrow_and_update() {
                Ok(shown) => (view.last, view.problem) = (Some(shown.clone()), None),
                Err(problem) => view.problem = Some(problem.clone()),
            }
        }
        let has_event = event::poll(KEY_WAIT)?;
        if has_event
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && matches!(press(&mut view, key, choice), Next::Leave)
        {
            return Ok(());
        }
        if is_new || has_event {
            terminal.draw(|frame| draw(frame, &mut view, address))?;
        }
    }
}

fn press(view: &mut View, key: KeyEvent, choice: &watch::Sender<Option<String>>) -> Next {
    let is_ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if is_ctrl_c => return Next::Leave,
        KeyCode::Char('q') => return Next::Leave,
        KeyCode::Esc | KeyCode::Backspace if view.in_mesh => {
            view.in_mesh = false;
            choice.send_replace(None);
        }
        KeyCode::Esc => return Next::Leave,
        KeyCode::Down | KeyCode::Char('j') => view.meshes.select_next(),
        KeyCode::Up | KeyCode::Char('k') => view.meshes.select_previous(),
        KeyCode::Enter if !view.in_mesh => {
            let meshes = view.last.as_ref().map(|shown| shown.meshes.as_slice());
            let index = view.meshes.selected().unwrap_or(0);
            if let Some(mesh) = meshes.and_then(|meshes| meshes.get(index)) {
                view.in_mesh = true;
                choice.send_replace(Some(mesh.id.to_string()));
            }
        }
        _ => {}
    }
    Next::Stay
}

fn draw(frame: &mut Frame<'_>, view: &mut View, address: &str) {
    let nodes = view.last.as_ref().map_or(1, |shown| shown.nodes.len());
    let nodes_height = u16::try_from(nodes.min(8)).unwrap_or(8) + 3;
    let [head, plots, nodes, rest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Length(nodes_height),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let title =
        Line::from(vec![Span::from("claudemesh broker ").bold(), Span::from(address).dim()]);
    frame.render_widget(title, head);
    if let Some(shown) = &view.last {
        draw_plots(frame, plots, &shown.points);
        frame.render_widget(node_table(shown), nodes);
        if view.in_mesh {
            draw_mesh(frame, rest, shown);
        } else {
            frame.render_stateful_widget(mesh_table(shown), rest, &mut view.meshes);
        }
    }
    frame.render_widget(foot_line(view), foot);
}

fn foot_line(view: &View) -> Line<'static> {
    match &view.problem {
        Some(problem) => {
            let text = format!("connection lost, retrying: {}", printable(problem));
            Line::from(text).style(Style::new().fg(Color::Red).bold())
        }
        None if view.in_mesh => Line::from("Esc back   q quit").dim(),
        None => Line::from("↑ ↓ choose a mesh   Enter show it   q quit").dim(),
    }
}

fn draw_plots(frame: &mut Frame<'_>, area: Rect, points: &[Point]) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let newest = points.last();
    let rate = rows::rate(newest.map_or(0.0, |point| point.accepted_per_second));
    let of =
        |value: fn(&Point) -> f64| points.iter().map(move |point| (value(point) * 100.0) as u64);
    let accepted = format!(" accepted {rate} ");
    plot(frame, left, accepted, of(|point| point.accepted_per_second), Color::Cyan);
    let latency = match newest.filter(|point| point.accepted_per_second > 0.0) {
        Some(point) => {
            format!(" kept on disk, 99 of 100 within {:.1} ms ", point.accept_p99_ms)
        }
        None => " kept on disk: nothing lately ".to_owned(),
    };
    plot(frame, right, latency, of(|point| point.accept_p99_ms), Color::Magenta);
}

/// Draws as many of the newest values as fit, the last of them at the right.
fn plot(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    values: impl Iterator<Item = u64>,
    color: Color,
) {
    let block = Block::bordered().title(title).border_style(Style::new().dim());
    let width = usize::from(block.inner(area).width);
    let values: Vec<u64> = values.collect();
    let shown = &values[values.len().saturating_sub(width)..];
    let line = Sparkline::default().data(shown.iter().copied()).style(Style::new().fg(color));
    frame.render_widget(line.block(block), area);
}

fn node_table(shown: &Shown) -> Table<'static> {
    let rows = shown.nodes.iter().map(|node| {
        let cells = rows::node(node);
        row(
            &cells,
            2,
            match node.state.as_str() {
                "ready" => Color::Green,
                "draining" => Color::Yellow,
                _ => Color::Red,
            },
        )
    });
    let title = format!(" nodes {} ", shown.nodes.len());
    table(title, &rows::NODE_HEADINGS, rows.collect(), &[3, 2, 2, 1, 1, 2, 2, 2, 2])
}

fn mesh_table(shown: &Shown) -> Table<'static> {
    let rows = shown.meshes.iter().map(|mesh| {
        let is_full = mesh.places >= i64::from(mesh.cap);
        row(&rows::mesh(mesh), 2, if is_full { Color::Red } else { Color::Reset })
    });
    let title = format!(" meshes {} ", shown.meshes_total);
    let table = table(title, &rows::MESH_HEADINGS, rows.collect(), &[3, 1, 2, 1, 1, 2, 2]);
    table.row_highlight_style(Style::new().reversed())
}

fn draw_mesh(frame: &mut Frame<'_>, area: Rect, shown: &Shown) {
    let Some(mesh) = &shown.mesh else {
        return frame.render_widget(Line::from("reading …").dim(), area);
    };
    let held_height = if mesh.held.is_empty() { 0 } else { mesh.held.len().min(8) + 3 };
    let held_height = u16::try_from(held_height).unwrap_or(0);
    let [peers, held] =
        Layout::vertical([Constraint::Min(3), Constraint::Length(held_height)]).areas(area);
    let rows = rows::peers(mesh, shown.at).map(|cells| {
        let color = match cells[2].as_str() {
            "idle" => Color::Green,
            "working" => Color::Yellow,
            "dnd" => Color::Red,
            _ => Color::DarkGray,
        };
        row(&cells, 2, color)
    });
    let title = format!(" {}: peers {} ", printable(&mesh.slug), mesh.peers.len());
    let of_peers = table(title, &rows::PEER_HEADINGS, rows.collect(), &[3, 2, 1, 2, 2, 2, 2]);
    frame.render_widget(of_peers, peers);
    let rows = mesh.held.iter().map(|held| row(&rows::held(held, shown.at), 1, Color::Reset));
    frame.render_widget(
        table(" held ".to_owned(), &rows::HELD_HEADINGS, rows.collect(), &[4, 1, 2]),
        held,
    );
}

fn row(cells: &[String], coloured: usize, color: Color) -> Row<'static> {
    Row::new(cells.iter().enumerate().map(|(index, text)| {
        let color = if index == coloured { color } else { Color::Reset };
        Cell::from(printable(text).into_owned()).style(Style::new().fg(color))
    }))
}

fn table(
    title: String,
    headings: &[&'static str],
    rows: Vec<Row<'static>>,
    widths: &[u16],
) -> Table<'static> {
    Table::new(rows, widths.iter().map(|part| Constraint::Fill(*part)))
        .header(Row::new(headings.iter().copied().map(Cell::from)).style(Style::new().dim()))
        .block(Block::bordered().title(title).border_style(Style::new().dim()))
}
