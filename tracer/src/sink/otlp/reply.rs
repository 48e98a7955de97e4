//! What a receiver's answer means, and how long to wait before trying again. Pure.

use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, StatusCode, header::RETRY_AFTER};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No wait is longer, unless the receiver asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A receiver that asks for more is mistaken, or means harm.
const LONGEST_ASKED: Duration = Duration::from_hours(1);

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Taken.
    Accepted,
    /// Taken but for some points, and why.
    Partial {
        /// Points left out.
        rejected: u64,
        /// The receiver's words.
        why: String,
    },
    /// Not to be sent again.
    Refused(String),
    /// To be sent again, not before `after` where the receiver says so.
    Again {
        /// What went wrong.
        why: String,
        /// How long the receiver wants to be left alone.
        after: Option<Duration>,
    },
}

/// What an HTTP answer means, by the specification of OTLP.
pub fn reply(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Reply {
    match status.as_u16() {
        200..=299 => accepted(body),
        429 | 502 | 503 | 504 => Reply::Again { why: said(status, body), after: retry_after(headers, now) },
        _ => Reply::Refused(said(status, body)),
    }
}

fn accepted(body: &[u8]) -> Reply {
    // An answer in another form than asked for is a success all the same: the status says so.
    let partial = ExportMetricsServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
    match partial {
        Some(partial) if partial.rejected_data_points > 0 => {
            Reply::Partial { rejected: partial.rejected_data_points.unsigned_abs(), why: plain(&partial.error_message) }
        }
        // Zero points and a message are a warning only.
        Some(partial) if !partial.error_message.is_empty() => {
            tracing::debug!("the receiver of OTLP warns: {}", plain(&partial.error_message));
            Reply::Accepted
        }
        _ => Reply::Accepted,
    }
}

/// The status, and the beginning of a body that is text.
fn said(status: StatusCode, body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if !text.trim().is_empty() && !text.contains('\0') => format!("it answered {status}: {}", plain(text)),
        _ => format!("it answered {status}"),
    }
}

/// One short line, whatever a receiver writes.
fn plain(text: &str) -> String {
    let line = text.trim().chars().map(|char| if char.is_control() { ' ' } else { char });
    line.take(200).collect()
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(asked.min(LONGEST_ASKED))
}

/// How long to wait after so many failed attempts, at least one. `chance` from 0 to 1 spreads many hosts out over the
/// second half of the wait; what the receiver asks for is never cut short.
pub fn wait(failed: u32, after: Option<Duration>, chance: f64) -> Duration {
    let longest = LONGEST_WAIT.min(FIRST_WAIT.saturating_mul(2_u32.saturating_pow(failed.saturating_sub(1))));
    let own = longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    after.map_or(own, |after| after.max(own))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

    use super::*;

    fn answer(status: u16, body: &[u8]) -> Reply {
        reply(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body, UNIX_EPOCH)
    }

    fn partial(rejected_data_points: i64, error_message: &str) -> Vec<u8> {
        let partial = ExportMetricsPartialSuccess { rejected_data_points, error_message: error_message.to_owned() };
        ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }

    #[test]
    fn only_what_the_specification_names_is_sent_again() {
        for status in 100..600 {
            let again = matches!(answer(status, b""), Reply::Again { .. });
            assert_eq!(again, [429, 502, 503, 504].contains(&status), "{status}");
        }
        assert_eq!(answer(200, b""), Reply::Accepted);
        assert_eq!(answer(200, b"{}"), Reply::Accepted);
        assert_eq!(answer(400, b"bad\nlabel\n"), Reply::Refused("it answered 400 Bad Request: bad label".to_owned()));
        assert_eq!(answer(301, &[0, 159]), Reply::Refused("it answered 301 Moved Permanently".to_owned()));
    }

    #[test]
    fn points_left_out_are_counted() {
        let why = "too old".to_owned();
        assert_eq!(answer(200, &partial(3, "too old")), Reply::Partial { rejected: 3, why });
        assert_eq!(answer(200, &partial(0, "a warning")), Reply::Accepted);
        assert_eq!(answer(200, &partial(-3, "")), Reply::Accepted);
    }

    #[test]
    fn a_receiver_may_ask_for_time() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let after = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            let Reply::Again { after, .. } = reply(StatusCode::SERVICE_UNAVAILABLE, &headers, b"", now) else {
                panic!("not to be sent again")
            };
            after
        };
        assert_eq!(after("17"), Some(Duration::from_secs(17)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:00 GMT"), Some(Duration::from_secs(23)));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("18446744073709551615"), Some(LONGEST_ASKED));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }

    #[test]
    fn waits_grow_to_an_end_and_never_below_what_was_asked_for() {
        let ms = |failed, after, chance| wait(failed, after, chance).as_millis();
        assert_eq!([1, 2, 3, 6, u32::MAX].map(|failed| ms(failed, None, 1.0)), [1000, 2000, 4000, 30_000, 30_000]);
        assert_eq!(ms(1, None, 0.0), 500);
        assert_eq!(ms(1, Some(Duration::from_secs(90)), 0.0), 90_000);
        assert_eq!(ms(6, Some(Duration::ZERO), 1.0), 30_000);
    }
}
