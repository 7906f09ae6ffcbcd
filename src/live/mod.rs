//! Progress while a run goes on, and while a journal is replayed: each reporter is one file and sees the same events.
//! Writes only where it is told to. A display that fails is switched off and remembers why; the run goes on.

mod eta;
mod jsonl;
mod line;
mod plain;
mod rate;
mod terminal;

use std::io;

use crate::event::Entry;

pub use jsonl::JsonLines;
pub use plain::Plain;
pub use terminal::Terminal;

/// Something that shows a run.
pub trait Reporter: Send {
    /// Takes the next entry of the journal.
    fn entry(&mut self, entry: &Entry) -> io::Result<()>;

    /// Ends the display, whether or not the run reached its last event.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The display of a run. Its methods cannot fail: the first error switches it off.
#[derive(Default)]
pub struct Display {
    reporters: Vec<Box<dyn Reporter>>,
    failure: Option<io::Error>,
}

impl Display {
    /// Shows nothing until a reporter is added.
    pub fn quiet() -> Display {
        Display::default()
    }

    pub fn with(mut self, reporter: impl Reporter + 'static) -> Display {
        self.reporters.push(Box::new(reporter));
        self
    }

    /// Shows an event on every display that still works.
    pub fn entry(&mut self, entry: &Entry) {
        self.each(|reporter| reporter.entry(entry));
    }

    /// Leaves the terminal clean.
    pub fn finish(&mut self) {
        self.each(|reporter| reporter.finish());
    }

    /// Why a reporter was switched off, if one was: worth a warning when the run is over.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    fn each(&mut self, mut step: impl FnMut(&mut dyn Reporter) -> io::Result<()>) {
        let failure = &mut self.failure;
        self.reporters.retain_mut(|reporter| match step(reporter.as_mut()) {
            Ok(()) => true,
            Err(e) => {
                failure.get_or_insert(e);
                false
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::Event;

    struct Breaks(Arc<Mutex<u32>>);

    impl Reporter for Breaks {
        fn entry(&mut self, _: &Entry) -> io::Result<()> {
            *self.0.lock().unwrap() += 1;
            Err(io::Error::other("terminal gone"))
        }
    }

    struct Counts(Arc<Mutex<u32>>);

    impl Reporter for Counts {
        fn entry(&mut self, _: &Entry) -> io::Result<()> {
            *self.0.lock().unwrap() += 1;
            Ok(())
        }
    }

    #[test]
    fn a_failing_display_is_switched_off_alone() {
        let (broken, whole) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let mut display = Display::quiet().with(Breaks(broken.clone())).with(Counts(whole.clone()));
        let entry = Entry { seq: 0, at: String::new(), event: Event::Notice { message: "x".into() } };
        for _ in 0..3 {
            display.entry(&entry);
        }
        display.finish();
        assert_eq!((*broken.lock().unwrap(), *whole.lock().unwrap()), (1, 3));
        assert_eq!(display.failure().unwrap().to_string(), "terminal gone");
    }
}
