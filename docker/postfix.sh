#!/usr/bin/env bash
# Starts Postfix in its container: takes what the environment sets, then is replaced by Postfix.
#
#   ELEMTA_HOSTNAME   the mail server's name
#   ELEMTA_DOMAINS    the domains it takes mail for, parted by spaces
#   ELEMTA_XCLIENT    only for tests: addresses that may pretend to be another client
set -euo pipefail

set_parameter() { [ -z "$2" ] || postconf -e "$1=$2"; }

set_parameter myhostname "${ELEMTA_HOSTNAME:-}"
set_parameter virtual_mailbox_domains "${ELEMTA_DOMAINS:+\$myhostname $ELEMTA_DOMAINS}"
set_parameter smtpd_authorized_xclient_hosts "${ELEMTA_XCLIENT:-}"
chown nobody:nogroup /var/mail/vhosts
touch -d '1 minute ago' /etc/postfix/main.cf /etc/postfix/master.cf # Postfix waits until its files are not brand new
exec postfix start-fg
