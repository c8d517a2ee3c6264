#!/bin/sh
# The container health check.
. /etc/lab/settings
case "$HEALTHY" in
yes) exit 0 ;;
no) exit 1 ;;
esac
[ "$HEALTHY_AFTER" -ge 0 ] && [ "$(age_ms)" -ge "$HEALTHY_AFTER" ]
