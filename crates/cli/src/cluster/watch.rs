//! `casblock cluster watch`: the hosts, live.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use casblock::device::BlockDevice;
use casblock::heartbeat::{Liveness, Observer, SlotView};
use clap::Args;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::{LookArgs, look, look_for_a_while, show, table};
use crate::output::Output;
use crate::signals::Interruptible;

/// Shows the hosts, live: who is there, who is late, who is dead
///
/// Arrows move through a long list, q or Ctrl-C ends it. Where stdout is no terminal, or with --json, it prints the hosts
/// whenever something but the number of beats has changed.
#[derive(Args, Debug)]
pub struct WatchArgs {
    #[command(flatten)]
    look: LookArgs,
    /// Print the hosts once, as `hosts` does
    #[arg(long)]
    once: bool,
}

/// How often the screen is made anew.
const REFRESH: Duration = Duration::from_millis(500);

/// `casblock cluster watch`.
pub fn watch(args: &WatchArgs, output: &Output) -> anyhow::Result<ExitCode> {
    let observer = super::observe(&args.look)?;
    let failed = || args.look.target.to_string();
    if args.once {
        show(&look_for_a_while(&observer, output).with_context(failed)?, output)?;
    } else if output.is_json() || !output.is_terminal() {
        print_changes(&observer, output).with_context(failed)?;
    } else {
        let mut terminal = ratatui::try_init().context("preparing the terminal")?;
        let ended = on_screen(&mut terminal, &observer, &args.look);
        ratatui::restore();
        ended.with_context(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Watched = Observer<Box<dyn BlockDevice>>;

/// Prints the hosts whenever somebody has come, gone, or changed his state, until a signal ends it.
fn print_changes(observer: &Watched, output: &Output) -> anyhow::Result<()> {
    let interrupt = Interruptible::new()?;
    let mut before = None;
    while interrupt.check().is_ok() {
        let slots = look(observer)?;
        let state = |(slot, leases): &(SlotView, u64)| (slot.slot, slot.generation, slot.liveness, *leases);
        let now: Vec<_> = slots.iter().map(state).collect();
        if before.as_ref() != Some(&now) {
            show(&slots, output)?;
            output.text("")?;
            before = Some(now);
        }
        std::thread::sleep(REFRESH);
    }
    Ok(())
}

fn on_screen(terminal: &mut ratatui::DefaultTerminal, observer: &Watched, args: &LookArgs) -> anyhow::Result<()> {
    let mut state = TableState::default();
    loop {
        let slots = look(observer)?;
        terminal.draw(|frame| draw(frame, &slots, observer, args, &mut state))?;
        let next = Instant::now() + REFRESH;
        while event::poll(next.saturating_duration_since(Instant::now()))? {
            let Event::Key(key) = event::read()? else { break };
            if key.kind != KeyEventKind::Press {
                continue;
            }
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Down => state.select_next(),
                KeyCode::Up => state.select_previous(),
                KeyCode::PageDown => state.scroll_down_by(10),
                KeyCode::PageUp => state.scroll_up_by(10),
                _ => continue,
            }
            break;
        }
    }
}

fn colour(liveness: Liveness) -> Color {
    match liveness {
        Liveness::Free => Color::DarkGray,
        Liveness::Alive => Color::Green,
        Liveness::Late => Color::Yellow,
        Liveness::Stale => Color::Red,
        Liveness::Fenced => Color::Magenta,
        Liveness::Damaged => Color::LightRed,
    }
}

fn draw(frame: &mut Frame<'_>, slots: &[(SlotView, u64)], observer: &Watched, args: &LookArgs, state: &mut TableState) {
    let [title, body, keys] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    let count = |liveness| slots.iter().filter(|(slot, _)| slot.liveness == liveness).count();
    let summary = format!(
        "{}: {} alive, {} late, {} stale, {} fenced; {} slots",
        args.target,
        count(Liveness::Alive),
        count(Liveness::Late),
        count(Liveness::Stale),
        count(Liveness::Fenced),
        observer.cluster().host_count()
    );
    frame.render_widget(Line::styled(summary, Modifier::BOLD), title);
    let rows = slots.iter().map(|(slot, leases)| {
        let style = Style::new().fg(colour(slot.liveness));
        let [number, name, generation, liveness, rest @ ..] = table::row(slot, *leases);
        let cells = [Cell::new(number), Cell::new(name), Cell::new(generation), Cell::new(liveness).style(style)];
        Row::new(cells.into_iter().chain(rest.into_iter().map(Cell::new)))
    });
    let widths = [5, 24, 10, 7, 10, 9, 6].map(Constraint::Max);
    let header = Row::new(table::HEADER).style(Modifier::DIM);
    let hosts = Table::new(rows, widths).header(header).row_highlight_style(Modifier::REVERSED);
    frame.render_stateful_widget(hosts, body, state);
    frame.render_widget(Line::styled("q ends   arrows move", Modifier::DIM), keys);
}

#[cfg(test)]
mod tests {
    use casblock::ats::Ats;
    use casblock::heartbeat::{Cluster, ClusterOptions, Host, HostConfig, HostName};
    use casblock::{Geometry, Store};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::target::Target;

    #[test]
    fn the_screen_shows_who_is_there() {
        let store = Store::in_memory(Geometry::blocks(64)).unwrap();
        Cluster::create(&Ats::new(&store), ClusterOptions::hosts(8), false).unwrap();
        let _host = Host::join(store.clone(), HostConfig::new(HostName::new("alpha").unwrap())).unwrap();
        let observer: Watched = Observer::new(Box::new(store) as Box<dyn BlockDevice>, 0).unwrap();
        let args = LookArgs { target: Target::Store("a.casb".into()), at: 0 };
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        let slots = look(&observer).unwrap();
        terminal.draw(|frame| draw(frame, &slots, &observer, &args, &mut TableState::default())).unwrap();
        let screen = terminal.backend().to_string();
        assert!(screen.contains("a.casb: 1 alive, 0 late, 0 stale, 0 fenced; 8 slots"), "{screen}");
        assert!(screen.contains("SLOT  NAME") && screen.contains("LEASES") && screen.contains("alpha"), "{screen}");
    }
}
