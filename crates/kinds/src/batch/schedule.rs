//! The syntax of a cron schedule.
