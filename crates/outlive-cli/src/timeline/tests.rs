//! What is in the picture. The runs are made up; with `OUTLIVE_TIMELINE_DIR` set, the pictures are written there to look at.

use super::*;
use crate::report::{Outcome, Stretch};

const MS: u64 = 1_000_000;
const US: u64 = 1000;

/// Clients in turn on the next free engine, with waits; every 23rd job is killed, every 57th hangs, every 71st fails.
struct Made {
    scenario: Scenario,
    jobs: Vec<JobRecord>,
    lives: Vec<Life>,
    elapsed_ns: u64,
}

fn made(clients: usize, engines: usize, jobs: u64) -> Made {
    let mut text = format!("name = \"made <up> & drawn\"\ndevice = {{ kind = \"sim\", engines = {engines} }}\n");
    text += "[scheduler]\nmode = \"arbiter\"\n";
    for client in 0..clients {
        text += &format!("[[client]]\nname = \"client{client}\"\nduration_us = 1\n");
    }
    let scenario = Scenario::parse("made.toml", &text).unwrap();
    let mut free_ns = vec![0_u64; engines];
    let mut records = Vec::new();
    for number in 0..jobs {
        let client = usize::try_from(number * number % 7 + number).unwrap() % clients;
        let engine = (0..engines).min_by_key(|engine| free_ns[*engine]).unwrap();
        let from_ns = free_ns[engine] + number * 37 % 11 * 150 * US;
        let outcome = match number {
            _ if number % 57 == 30 => Outcome::TimedOut,
            _ if number % 71 == 12 => Outcome::Faulted,
            _ if number % 23 == 6 => Outcome::Canceled,
            _ if number % 97 == 41 => Outcome::Innocent,
            _ if number % 89 == 45 => Outcome::Dependency,
            _ => Outcome::Ok,
        };
        let mut length_ns = (500 + 700 * (client as u64 % 4) + number * 53 % 17 * 90) * US;
        if outcome == Outcome::TimedOut {
            length_ns = 12 * MS;
        }
        let to_ns = from_ns + length_ns;
        let committed_ns = from_ns.saturating_sub(number * 29 % 13 * 400 * US);
        let has_run = outcome != Outcome::Dependency;
        records.push(JobRecord {
            instance: client,
            cycle: number / clients as u64,
            cycle_jobs: 1,
            committed_ns,
            ready_ns: has_run.then_some(committed_ns + (from_ns - committed_ns) / 3),
            stretches: if has_run {
                vec![Stretch { engine: u32::try_from(engine).unwrap(), from_ns, to_ns }]
            } else {
                Vec::new()
            },
            finished_ns: if outcome == Outcome::Canceled { from_ns + length_ns / 2 } else { to_ns },
            outcome,
        });
        if has_run {
            free_ns[engine] = to_ns;
        }
    }
    let elapsed_ns = *free_ns.iter().max().unwrap() + MS;
    let lives = (0..clients).map(|instance| Life { instance, from_ns: 0, to_ns: elapsed_ns }).collect();
    Made { scenario, jobs: records, lives, elapsed_ns }
}

fn drawn(name: &str, made: &Made) -> String {
    let moments = [Moment { at_ns: made.elapsed_ns / 3, label: "reset".to_owned() }];
    let svg = render(&Picture {
        scenario: &made.scenario,
        device_name: "simulated GPU",
        elapsed_ns: made.elapsed_ns,
        jobs: &made.jobs,
        lives: &made.lives,
        moments: &moments,
    });
    if let Some(folder) = std::env::var_os("OUTLIVE_TIMELINE_DIR") {
        std::fs::write(std::path::Path::new(&folder).join(name), &svg).unwrap();
    }
    assert_is_xml(&svg);
    svg
}

/// Every element is closed, in order, and no `<` or `&` stands alone.
fn assert_is_xml(text: &str) {
    let mut open = Vec::new();
    for piece in text.split('<').skip(1) {
        let (tag, rest) = piece.split_once('>').unwrap_or_else(|| panic!("unclosed <{piece}"));
        assert!(!rest.contains('>'), "a bare > in {rest}");
        for part in piece.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| part.starts_with(entity));
            assert!(known, "a bare & in {piece}");
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "at <{tag}>");
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?} not closed");
    assert!(!text.contains("NaN") && !text.contains("inf"), "a coordinate is no number");
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn fifty_jobs_are_bars_with_names() {
    let svg = drawn("50.svg", &made(4, 2, 50));
    assert!(svg.contains("made &lt;up&gt; &amp; drawn, seed 1"));
    assert_eq!(count(&svg, "class=\"engine\""), 2);
    assert_eq!(count(&svg, "class=\"client\""), 4);
    assert_eq!(count(&svg, "class=\"density\""), 0);
    assert!(!svg.contains("A closer look"));
    assert_eq!(count(&svg, "; waited "), 49, "a tooltip for each job that ran");
    assert!(svg.contains("killed or closed") && svg.contains("#mark-Hung") && svg.contains("reset"));
    assert!(svg.contains("url(#undead)"));
}

#[test]
fn five_thousand_jobs_are_density_and_a_closer_look() {
    let svg = drawn("5000.svg", &made(5, 2, 5000));
    assert!(count(&svg, "class=\"density\"") >= 10);
    assert!(svg.contains("A closer look, from "));
    assert!(svg.len() < 700_000, "{} bytes", svg.len());
}

#[test]
fn the_size_does_not_grow_with_the_jobs() {
    let svg = drawn("100000.svg", &made(40, 3, 100_000));
    assert!(svg.len() < 2_500_000, "{} bytes", svg.len());
    assert_eq!(count(&svg, "class=\"client\""), 2 * 32);
    assert!(svg.contains("all others"));
}

#[test]
fn rows_of_one_color_differ_in_pattern() {
    let svg = drawn("20.svg", &made(20, 4, 400));
    assert_eq!(count(&svg, "<pattern "), 1 + 13);
    assert!(svg.contains("url(#row7)"));
}

#[test]
fn a_run_without_jobs_is_a_picture_too() {
    let mut made = made(1, 1, 1);
    made.jobs.clear();
    made.elapsed_ns = 0;
    let svg = drawn("none.svg", &made);
    assert!(svg.contains("0 jobs"));
}

#[test]
fn a_job_that_was_rotated_off_and_came_back_at_once_is_one_bar() {
    let mut made = made(1, 1, 1);
    let stretch = |from_ns, to_ns| Stretch { engine: 0, from_ns, to_ns };
    made.jobs[0].stretches = vec![stretch(0, MS), stretch(MS, 2 * MS), stretch(3 * MS, 4 * MS)];
    made.elapsed_ns = 5 * MS;
    assert_eq!(count(&drawn("rotated.svg", &made), "; waited "), 2);
}

#[test]
fn a_client_that_comes_and_goes_has_gaps() {
    let mut made = made(4, 2, 3000);
    made.lives.retain(|life| life.instance != 2);
    let mut from_ns = 0;
    while from_ns < made.elapsed_ns {
        let to_ns = (from_ns + 80 * MS).min(made.elapsed_ns);
        made.lives.push(Life { instance: 2, from_ns, to_ns });
        let has_life = |job: &JobRecord| job.instance != 2 || !(to_ns..to_ns + 20 * MS).contains(&job.committed_ns);
        made.jobs.retain(has_life);
        for job in made.jobs.iter_mut().filter(|job| job.instance == 2 && job.committed_ns < to_ns) {
            if job.finished_ns > to_ns {
                job.finished_ns = to_ns;
                job.outcome = Outcome::Canceled;
                job.stretches.retain(|stretch| stretch.from_ns < to_ns);
            }
        }
        from_ns += 100 * MS;
    }
    let lives = made.lives.len();
    let svg = drawn("gaps.svg", &made);
    let backgrounds = format!("height=\"31\" fill=\"{LANE}\"");
    assert!(count(&svg, &backgrounds) >= lives, "each life has its ground");
}
