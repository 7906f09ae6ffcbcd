//! When a scheduled run starts: a time of day, on all days or on some days of the week, as each scheduler writes it.

/// Monday to Sunday, as people and systemd write them.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A time of day on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// From Monday; all of them for every day.
    days: [bool; 7],
    hour: u8,
    minute: u8,
}

impl When {
    /// `02:00`: every day.
    pub fn daily(text: &str) -> Result<When, String> {
        let (hour, minute) = time(text)?;
        Ok(When { days: [true; 7], hour, minute })
    }

    /// `Sun 02:00`, `Mon,Thu 22:30`, `Mon..Fri 02:00`.
    pub fn weekly(text: &str) -> Result<When, String> {
        let wanted =
            || format!("`{text}` is no day and time; write it as 'Sun 02:00', 'Mon,Thu 22:30' or 'Mon..Fri 02:00'");
        let (days_text, at) = text.trim().rsplit_once(char::is_whitespace).ok_or_else(wanted)?;
        let (hour, minute) = time(at)?;
        let mut days = [false; 7];
        for part in days_text.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last) = (day(first).ok_or_else(wanted)?, day(last).ok_or_else(wanted)?);
            // `Sat..Mon` goes over the end of the week.
            let length = (last + 7 - first) % 7;
            (0..=length).for_each(|i| days[(first + i) % 7] = true);
        }
        Ok(When { days, hour, minute })
    }

    /// For `OnCalendar=`: `Sun *-*-* 02:00:00`.
    pub fn systemd(&self) -> String {
        let days = match self.days {
            [true, true, true, true, true, true, true] => String::new(),
            days => {
                let named: Vec<&str> = DAYS.iter().zip(days).filter(|(_, on)| *on).map(|(d, _)| *d).collect();
                format!("{} ", named.join(","))
            }
        };
        format!("{days}*-*-* {:02}:{:02}:00", self.hour, self.minute)
    }

    /// The five fields of a crontab: `0 2 * * 0`.
    pub fn cron(&self) -> String {
        let days = match self.days {
            [true, true, true, true, true, true, true] => "*".to_string(),
            days => {
                // Sunday is 0 everywhere, 7 only in some.
                let mut numbers: Vec<usize> = (0..7).filter(|i| days[*i]).map(|i| (i + 1) % 7).collect();
                numbers.sort_unstable();
                numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
        };
        format!("{} {} * * {days}", self.minute, self.hour)
    }
}

fn time(text: &str) -> Result<(u8, u8), String> {
    let read = || {
        let (hour, minute) = text.trim().split_once(':')?;
        let number = |t: &str, below: u8| t.parse::<u8>().ok().filter(|n| t.len() <= 2 && *n < below);
        Some((number(hour, 24)?, number(minute, 60)?))
    };
    read().ok_or_else(|| format!("`{text}` is no time of day; write it as 02:00"))
}

fn day(text: &str) -> Option<usize> {
    let text = text.trim().to_lowercase();
    let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    (text.len() >= 3).then(|| full.iter().position(|d| d.starts_with(&text)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_each_scheduler_writes_it() {
        let daily = When::daily("2:05").unwrap();
        assert_eq!((daily.systemd(), daily.cron()), ("*-*-* 02:05:00".into(), "5 2 * * *".into()));
        for (text, systemd, cron) in [
            ("Sun 02:00", "Sun *-*-* 02:00:00", "0 2 * * 0"),
            ("mon..fri 22:30", "Mon,Tue,Wed,Thu,Fri *-*-* 22:30:00", "30 22 * * 1,2,3,4,5"),
            ("Thursday,Mon 00:00", "Mon,Thu *-*-* 00:00:00", "0 0 * * 1,4"),
            ("Sat..Mon 1:00", "Mon,Sat,Sun *-*-* 01:00:00", "0 1 * * 0,1,6"),
        ] {
            let when = When::weekly(text).unwrap();
            assert_eq!((when.systemd().as_str(), when.cron().as_str()), (systemd, cron), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "24:00", "02:60", "2", "two o'clock", "002:00"] {
            assert!(When::daily(text).is_err(), "{text}");
        }
        for text in ["02:00", "Someday 02:00", "Su 02:00", "Mon..Someday 02:00", "Mon 25:00"] {
            assert!(When::weekly(text).is_err(), "{text}");
        }
    }
}
