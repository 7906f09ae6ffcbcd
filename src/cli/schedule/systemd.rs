//! A service and its timer. systemd starts no second instance of a service that is still running.

use super::{Made, Night};
use crate::units::format_duration;

pub const HINT: &str = "\
To install:
  sudo install -m 644 NAME.service NAME.timer /etc/systemd/system/
  sudo install -D -m 600 NAME.env /etc/llmatrix/NAME.env      # and fill it in
  sudo systemctl daemon-reload && sudo systemctl enable --now NAME.timer
To try it now: sudo systemctl start NAME.service; journalctl -fu NAME";

pub fn files(night: &Night) -> Vec<Made> {
    let name = &night.name;
    vec![
        Made { name: format!("{name}.service"), text: service(night) },
        Made { name: format!("{name}.timer"), text: timer(night) },
        Made { name: format!("{name}.env"), text: night.environment() },
    ]
}

fn service(night: &Night) -> String {
    let Night { name, experiment, .. } = night;
    let user = std::env::var("USER").ok().filter(|u| u != "root" && !u.is_empty());
    let user = user.map(|u| format!("User={}\n", percent(&u))).unwrap_or_default();
    let command: Vec<String> = [night.program.display().to_string()]
        .into_iter()
        .chain(night.command(&night.beside("-summary.md")))
        .map(|w| word(&w))
        .collect();
    let limit = match night.longest {
        Some(longest) => format!(
            "# The budget, and what a last engine start and sample may take. Then it is told to end, as by Ctrl-C.\n\
             TimeoutStartSec={}\n",
            format_duration(longest).replace('m', "min")
        ),
        None => "TimeoutStartSec=infinity\n".to_string(),
    };
    format!(
        "[Unit]\n\
         Description=llmatrix {}\n\
         Wants=network-online.target\n\
         After=network-online.target docker.service\n\n\
         [Service]\n\
         Type=oneshot\n\
         {user}WorkingDirectory={}\n\
         EnvironmentFile=-/etc/llmatrix/{name}.env\n\
         # 6 is a regression, 9 a gate that cannot decide: the unit then counts as failed, and OnFailure= can tell somebody.\n\
         ExecStart={}\n\
         {limit}\
         # Only the program itself is told to end: it stops its engines and writes its summary.\n\
         KillMode=mixed\n\
         TimeoutStopSec=15min\n",
        percent(experiment),
        percent(&night.directory.display().to_string()),
        command.join(" "),
    )
}

fn timer(night: &Night) -> String {
    format!(
        "[Unit]\n\
         Description=When llmatrix runs {}\n\n\
         [Timer]\n\
         # Local time; `UTC` behind it makes it that.\n\
         OnCalendar={}\n\
         AccuracySec=1s\n\
         # A night that was missed is not made up for by day, when others use the machine.\n\
         Persistent=false\n\n\
         [Install]\n\
         WantedBy=timers.target\n",
        percent(&night.experiment),
        night.when.systemd()
    )
}

/// `%` begins a specifier.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a command line: quoted where it has to be, and without what systemd would expand.
fn word(text: &str) -> String {
    let expanded = percent(text).replace('$', "$$");
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%$~".contains(c);
    if !expanded.is_empty() && expanded.chars().all(plain) {
        return expanded;
    }
    format!("\"{}\"", expanded.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_what_they_are() {
        for (text, want) in [
            ("--budget", "--budget"),
            ("a b", "\"a b\""),
            ("50%", "50%%"),
            ("$HOME/x", "$$HOME/x"),
            ("say \"hi\"\\", "\"say \\\"hi\\\"\\\\\""),
            ("", "\"\""),
        ] {
            assert_eq!(word(text), want);
        }
    }
}
