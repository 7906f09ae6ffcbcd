//! `[cost]`: what an hour of a deployment costs. Never hashed; reports can price what was measured anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::read::Reader;
use super::tree::Entry;
use crate::diag::Diagnostic;
use crate::value::Value;

/// GPUs of a node that is paid as a whole, unless the file says otherwise.
const NODE_GPUS: u32 = 8;
const KEYS: [&str; 4] = ["gpu_hour_usd", "node_hour_usd", "node_gpus", "market"];

/// Which of a class's prices is paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Market {
    #[default]
    OnDemand,
    Spot,
}

impl Market {
    pub const WORDS: [&str; 2] = ["on_demand", "spot"];

    fn parse(word: &str) -> Option<Market> {
        Some(match word {
            "on_demand" => Market::OnDemand,
            "spot" => Market::Spot,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Market::OnDemand => "on_demand",
            Market::Spot => "spot",
        }
    }
}

/// Prices in US dollars per hour, by hardware class or a prefix of it (`h100` matches `h100-sxm-80gb`), in the market that
/// is paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Of one GPU; of the host, where a deployment uses none.
    pub gpu_hour_usd: BTreeMap<String, f64>,
    /// Of a whole node: it goes before the price of a GPU, and a node that is used in part is paid in full.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_hour_usd: BTreeMap<String, f64>,
    pub node_gpus: u32,
    pub market: Market,
}

impl Default for Cost {
    fn default() -> Self {
        let (gpu_hour_usd, node_hour_usd) = Default::default();
        Cost { gpu_hour_usd, node_hour_usd, node_gpus: NODE_GPUS, market: Market::default() }
    }
}

impl Cost {
    pub fn is_empty(&self) -> bool {
        self.gpu_hour_usd.is_empty() && self.node_hour_usd.is_empty()
    }

    /// US dollars for an hour of a deployment; `None` for a class without a price.
    pub fn hour(&self, hardware: &str, gpus: u32) -> Option<f64> {
        if let Some(usd) = price(&self.node_hour_usd, hardware) {
            return Some(usd * f64::from(gpus.max(1).div_ceil(self.node_gpus.max(1))));
        }
        price(&self.gpu_hour_usd, hardware).map(|usd| usd * f64::from(gpus.max(1)))
    }
}

/// That of the longest name that is the class or a prefix of it.
fn price(prices: &BTreeMap<String, f64>, hardware: &str) -> Option<f64> {
    let fits = |name: &str| hardware.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    prices.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len()).map(|(_, usd)| *usd)
}

impl Reader<'_> {
    pub(super) fn cost(&mut self, entries: &[Entry]) -> Cost {
        let mut cost = Cost::default();
        // The prices are read by it.
        if let Some(entry) = entries.iter().find(|e| &*e.key == "market") {
            let value = entry.node.to_value();
            match value.as_str().and_then(Market::parse) {
                Some(market) => cost.market = market,
                None => {
                    let message = format!("`market` takes one of {}, not {value}", Market::WORDS.join(" and "));
                    self.push(Diagnostic::new("wrong_type", message), &entry.node.span);
                }
            }
        }
        for entry in entries {
            match (&*entry.key, entry.node.as_table()) {
                ("gpu_hour_usd", Some(prices)) => cost.gpu_hour_usd = self.prices(prices, cost.market),
                ("node_hour_usd", Some(prices)) => cost.node_hour_usd = self.prices(prices, cost.market),
                ("market", _) => {}
                ("node_gpus", None) => {
                    let value = entry.node.to_value();
                    match value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) {
                        Some(n) => cost.node_gpus = n,
                        None => {
                            let message = format!("`node_gpus` takes a whole number of at least 1, not {value}");
                            self.push(Diagnostic::new("wrong_type", message), &entry.node.span);
                        }
                    }
                }
                (key, _) => {
                    let help = crate::diag::did_you_mean(key, KEYS).filter(|_| !KEYS.contains(&key));
                    let help = help.unwrap_or_else(|| "write gpu_hour_usd = { h100 = 2.49 }".into());
                    let message = match KEYS.contains(&key) {
                        true => format!("`{key}` is a table of prices by hardware class"),
                        false => format!("`{key}` is not a key of [cost]"),
                    };
                    self.push(Diagnostic::new("unknown_setting", message).help(help), &entry.key_span);
                }
            }
        }
        cost
    }

    /// A price is a number, or a table of prices by market.
    fn prices(&mut self, entries: &[Entry], market: Market) -> BTreeMap<String, f64> {
        let mut prices = BTreeMap::new();
        for entry in entries {
            let value = entry.node.to_value();
            let here = match value.as_map() {
                Some(by_market) if by_market.keys().all(|k| Market::parse(k).is_some()) => {
                    by_market.get(market.as_str())
                }
                Some(_) => None,
                None => Some(&value),
            };
            match here.and_then(Value::as_f64).filter(|usd| usd.is_finite() && *usd >= 0.0) {
                Some(usd) => _ = prices.insert(entry.key.to_string(), usd),
                None => {
                    let message = format!(
                        "the price of `{}` takes a number of at least 0, or one for each market that is used",
                        entry.key
                    );
                    let help = format!("the market is {0}: write {1} = {{ {0} = 2.49 }}", market.as_str(), entry.key);
                    self.push(Diagnostic::new("wrong_type", message).help(help), &entry.node.span);
                }
            }
        }
        prices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, usd)| (name.to_string(), *usd)).collect()
    }

    #[test]
    fn the_longest_name_that_fits_is_the_price() {
        let cost = Cost { gpu_hour_usd: table(&[("h100", 2.0), ("h100-sxm", 3.0), ("cpu", 0.5)]), ..Cost::default() };
        assert_eq!(cost.hour("h100-sxm-80gb", 1), Some(3.0));
        assert_eq!(cost.hour("h100-pcie", 4), Some(8.0));
        assert_eq!(cost.hour("h1000", 1), None);
        assert_eq!(cost.hour("cpu", 0), Some(0.5), "a host without GPUs has an hour, too");
    }

    #[test]
    fn a_node_is_paid_in_full() {
        let cost =
            Cost { gpu_hour_usd: table(&[("h100", 2.0)]), node_hour_usd: table(&[("h100", 98.32)]), ..Cost::default() };
        assert_eq!(cost.hour("h100-sxm-80gb", 1), Some(98.32));
        assert_eq!(cost.hour("h100-sxm-80gb", 8), Some(98.32));
        assert_eq!(cost.hour("h100-sxm-80gb", 9), Some(2.0 * 98.32));
    }
}
