//! What is told of a reservation.

use crate::{Jobs, add_all, executor, resv};
use outlive::resv::Usage::{Bookkeep, Kernel, Read, Write};
use outlive::resv::{Locked, Transaction};

/// The kernel's lines, which monitoring programs read: no bookkeeping in them.
#[test]
fn as_bufinfo_has_it() {
    let executor = executor();
    let (one, two, three) = (Jobs::on(&executor), Jobs::on(&executor), Jobs::on(&executor));
    let on = resv();
    assert_eq!(on.describe().unwrap().to_string(), "");
    let (a, b, c) = (one.job(), two.job(), three.job());
    add_all(&on, &[(Kernel, a.clone()), (Write, b.clone()), (Bookkeep, c), (Read, two.job())]);
    two.end(1);
    let (a, b) = (a.context(), b.context());
    let expected = format!(
        "\tkernel fence:{a}:1 jobs fake unsignalled\n\twrite fence:{b}:1 jobs fake signalled\n\
         \tread fence:{b}:2 jobs fake unsignalled\n"
    );
    assert_eq!(on.describe().unwrap().to_string(), expected);
}

#[test]
fn and_more_of_it() {
    let executor = executor();
    let (one, two) = (Jobs::on(&executor), Jobs::on(&executor));
    let on = resv();
    let (write, bookkeep) = (one.job(), two.job());
    add_all(&on, &[(Write, write.clone()), (Bookkeep, bookkeep.clone())]);
    write.on_signaled(|_| {}).unwrap().keep();
    let text = format!("{:#}", on.describe().unwrap());
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], format!("reservation {}, not locked", on.id()));
    let (write, bookkeep) = (write.context(), bookkeep.context());
    assert!(lines[1].starts_with(&format!("\twrite fence:{write}:1 jobs fake unsignalled, here for ")), "{text}");
    assert!(lines[1].ends_with(", waited for") && !lines[2].ends_with("waited for"), "{text}");
    assert!(lines[2].starts_with(&format!("\tbookkeep fence:{bookkeep}:1 jobs fake unsignalled, here for ")), "{text}");
    assert_eq!(lines.len(), 3);
    assert_eq!(format!("{:?}", on.describe().unwrap()).lines().count(), 3);
}

/// Telling never waits for who has it locked: here, for itself.
#[test]
fn also_of_one_that_is_locked_and_waited_for() {
    let on = resv();
    let (told, ticket) = std::thread::scope(|scope| {
        Transaction::new()
            .run::<Locked<'_>, _>(
                |attempt| attempt.lock(&on),
                |sealed, _| {
                    scope.spawn(|| Transaction::new().run::<Locked<'_>, _>(|attempt| attempt.lock(&on), |_, _| ()));
                    loop {
                        let text = format!("{:#}", on.describe().unwrap());
                        if text.contains("has waited") {
                            return (text, sealed.ticket());
                        }
                        std::thread::yield_now();
                    }
                },
            )
            .unwrap()
    });
    let lines: Vec<_> = told.lines().collect();
    let first = format!("reservation {}, locked by ticket {ticket} of context ", on.id());
    assert!(lines[0].starts_with(&first), "{told}");
    let (waiter, since) = lines[1].split_once(" has waited for it for ").unwrap();
    assert!(waiter.starts_with("\tticket ") && !waiter.contains(&format!("ticket {ticket} ")), "{told}");
    assert!(!since.is_empty());
}
