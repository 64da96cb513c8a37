"""Wire: how do libmilter's calls become steps of a session, and a decision become answers to the MTA?

The only module that imports `Milter` (pymilter).  Each connection has a `Link` with its `Session`; each
callback hands its step on and answers as was negotiated.  At the end of a message all edits are planned, signed for,
and sent, then the verdict; whatever fails on the way makes it a tempfail, so that no half-edited mail is accepted.

What libmilter wants of us, learnt the hard way:
* A step agreed to be quiet must be answered with NOREPLY, also when it failed: any other answer puts libmilter back
  before MAIL, it then ignores the rest of the mail, and the MTA waits in vain.  Failures are kept for the end.
* SystemExit in a callback ends the process, so everything is caught.  What cannot be caught (a HELO name that is no
  UTF-8 is converted in C) goes by the exception policy: CONTINUE, as if the step had not come.
* Debian's libmilter moves a connection between threads; nothing here depends on the thread.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import wraps

import Milter

from elemta.config.model import Settings
from elemta.decision import Decision
from elemta.facts import Client
from elemta.verdict import Disposition
from elemta_milter import edits, reply
from elemta_milter.bounds import BOUNDS, Bounds
from elemta_milter.context import Context, macros, send
from elemta_milter.negotiation import Act, Step, Terms, terms
from elemta_milter.planning import plan
from elemta_milter.port import Port
from elemta_milter.session import EOM_MACROS, MAIL_MACROS, Ending, Session
from elemta_milter.vouching import Voucher

_log = logging.getLogger("elemta.milter")

_FINAL = {
    Disposition.ACCEPT: Milter.CONTINUE,  # after ACCEPT libmilter would no longer know QUIT_NC
    Disposition.QUARANTINE: Milter.CONTINUE,  # into the hold queue: that is an edit
    Disposition.DISCARD: Milter.DISCARD,
    Disposition.DEFER: Milter.TEMPFAIL,
    Disposition.REJECT: Milter.REJECT,
}
_MARKS = Act.ADD_HEADER | Act.CHANGE_HEADER
_CONTINUE, _NOREPLY, _TEMPFAIL = int(Milter.CONTINUE), int(Milter.NOREPLY), int(Milter.TEMPFAIL)


class Link:
    """One connection from the MTA.

    Attributes:
        session: its SMTP session; None for a connection over the bound: every step of it is told to come again.
        steps: how its steps come and are answered (`Step`).
        marks: we may change its header.
        leading_space: header values come and go with their leading space.
        after_header: what a header field is answered with.
        broken: a step of the mail under way failed.
    """

    __slots__ = ("after_header", "broken", "leading_space", "marks", "session", "steps")

    def __init__(self, session: Session | None, agreed: Terms) -> None:
        self.session = session
        self.steps = agreed.steps
        self.marks = agreed.acts & _MARKS == _MARKS
        self.leading_space = agreed.steps & Step.LEADING_SPACE != 0
        self.after_header = _NOREPLY if agreed.steps & Step.QUIET_HEADER else _CONTINUE
        self.broken = False


def _step(quiet: int = 0) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Make libmilter's callback of a method (self, ctx, link, session, ...).

    It catches everything, and answers NOREPLY if `quiet` was agreed, else what the method gives, None for CONTINUE.
    """
    flag, go_on, no_reply, tempfail = int(quiet), _CONTINUE, _NOREPLY, _TEMPFAIL

    def decorate(method: Callable[..., int | None]) -> Callable[..., int]:
        @wraps(method)
        def callback(self: Wire, ctx: Context, *arguments: object) -> int:
            link: Link | None = None
            answer: int | None
            try:
                link = ctx.getpriv() or self._follow(ctx)
                if link.session is None:
                    return tempfail
                answer = method(self, ctx, link, link.session, *arguments)
            except BaseException:  # noqa: BLE001 - and it is logged
                answer = _failed(link, method.__name__.strip("_"))
            if flag and link is not None and link.steps & flag:
                return no_reply
            return go_on if answer is None else answer

        return callback

    return decorate


def _failed(link: Link | None, step: str) -> int:
    """Log the exception under way, and defer the mail."""
    _log.exception("%s failed, the mail is deferred", step)
    if link is not None:
        link.broken = True
    return _TEMPFAIL


class Wire:
    """libmilter in this process; there can be only one."""

    def __init__(
        self,
        port: Port,
        settings: Settings,
        *,
        early: bool,
        body: bool,
        trusts: Callable[[Client], bool],
        undone: Callable[[Decision], None],
        voucher: Voucher | None = None,
        bounds: Bounds = BOUNDS,
    ) -> None:
        """Prepare.

        Args:
            port: the engine.
            settings: for our name and the spool directory.
            early: some check runs before the message.
            body: some check reads the body.
            trusts: whether a client may bring Authentication-Results in our name.
            undone: is told of a decision that could not be carried out, on any thread.
            voucher: signs and seals what is edited; None where nothing is.
            bounds: see there.
        """
        self._port = port
        self._host = settings.host
        self._spool = settings.spool
        self._early = early
        self._body = body
        self._trusts = trusts
        self._undone = undone
        self._voucher = voucher
        self._bounds = bounds
        self._links: set[Link] = set()
        self._agreed = Terms()

    @property
    def connections(self) -> int:
        """How many connections are served; those that were told to come again do not count."""
        return len(self._links)

    def listen(self, descriptor: int) -> None:
        """Take the listening, non-blocking socket `descriptor`; needs a libmilter that knows "fd:" (Debian's does).

        Raises:
            Milter.error: it cannot be used.
        """
        _allow_packets(self._bounds.packet)
        Milter.set_exception_policy(Milter.CONTINUE)
        Milter.set_connect_callback(self._connect)
        Milter.set_helo_callback(self._helo)
        Milter.set_envfrom_callback(self._mail)
        Milter.set_envrcpt_callback(self._rcpt)
        Milter.set_header_callback(self._header)
        Milter.set_body_callback(self._chunk)
        Milter.set_eom_callback(self._eom)
        Milter.set_abort_callback(self._abort)
        Milter.set_close_callback(self._close)
        Milter.set_flags(Milter.CURR_ACTS)
        Milter.setconn(f"fd:{descriptor}")
        Milter.register("elemta", negotiate=self._negotiate)
        Milter.opensocket(False)

    def run(self) -> None:
        """Serve until the process ends; on a thread of its own, so that Python keeps HUP and TERM.

        Raises:
            Milter.error: libmilter gave up.
        """
        Milter.main()

    # --- what libmilter calls, on its threads

    def _negotiate(self, ctx: Context, offer: list[int]) -> int:
        try:
            room = len(self._links) < self._bounds.connections
            agreed = terms(offer[0], offer[1], body=self._body, quiet=room)
            if not room:
                _log.warning("%d connections are open, one more is told to come again", len(self._links))
            if agreed.acts & Act.CHOOSE_MACROS:
                ctx.setsymlist(Milter.M_ENVFROM, " ".join(MAIL_MACROS))
                ctx.setsymlist(Milter.M_EOM, " ".join(EOM_MACROS))
                ctx.setsymlist(Milter.M_ENVRCPT, "{none}")  # there is none: an empty packet comes
            if room and agreed.acts & _MARKS != _MARKS:
                _log.warning("the MTA lets us change no header fields: no Authentication-Results is added or removed")
            self._link(ctx, agreed, room=room)
            self._agreed = agreed
            offer[:] = [agreed.acts, agreed.steps, 0, 0]
        except BaseException:  # noqa: BLE001 - and it is logged
            _log.exception("negotiation failed, the connection is closed")
            return int(Milter.REJECT)
        return int(Milter.CONTINUE)

    @_step(Step.QUIET_CONNECT)
    def _connect(self, _ctx: Context, _link: Link, session: Session, name: str, _family: int, address: object) -> None:
        if isinstance(address, tuple):  # (address, port) or (address, port, flow, scope)
            session.connect(name, address[0], address[1])
        else:  # a unix socket's path, or None
            session.connect(name, None, 0)

    @_step()
    def _helo(self, _ctx: Context, _link: Link, session: Session, name: str) -> None:
        session.helo(name)

    @_step(Step.QUIET_MAIL)
    def _mail(self, ctx: Context, link: Link, session: Session, sender: bytes, *arguments: bytes) -> None:
        link.broken = False
        session.mail(sender, arguments, macros(ctx, MAIL_MACROS))

    @_step(Step.QUIET_RCPT)
    def _rcpt(self, _ctx: Context, _link: Link, session: Session, recipient: bytes, *_: bytes) -> None:
        session.rcpt(recipient)

    def _header(self, ctx: Context, name: str, value: bytes) -> int:
        """As `_step` does it, in fewer calls: this step comes some twenty times a mail."""
        link: Link | None = None
        try:
            link = ctx.getpriv() or self._follow(ctx)
            session = link.session
            if session is None:
                return _TEMPFAIL
            session.header(name, value)
        except BaseException:  # noqa: BLE001 - and it is logged
            answer = _failed(link, "header")
            return _NOREPLY if link is not None and link.after_header == _NOREPLY else answer
        return link.after_header

    @_step()
    def _chunk(self, _ctx: Context, link: Link, session: Session, chunk: bytes) -> None:
        if self._body and not link.broken:
            session.body(chunk)

    @_step()
    def _eom(self, ctx: Context, link: Link, session: Session) -> int:
        if link.broken:
            session.abort()
        ending = session.eom(macros(ctx, EOM_MACROS))  # None after an abort
        if ending is None:
            return _TEMPFAIL
        decision = self._port.decide(ending.case, ending.message, ctx.progress)
        try:
            return self._carry_out(ctx, link, ending, decision)
        except BaseException:
            self._undone(decision)
            raise

    @_step()
    def _abort(self, _ctx: Context, _link: Link, session: Session) -> None:
        session.abort()

    def _close(self, ctx: Context) -> int:
        link = ctx.getpriv()
        if link is not None:
            ctx.setpriv(None)
            self._links.discard(link)
            try:
                if link.session is not None:
                    link.session.abort()
            except BaseException:  # noqa: BLE001 - and it is logged
                _log.exception("close failed")
        return int(Milter.CONTINUE)

    # --- what they share

    def _link(self, ctx: Context, agreed: Terms, *, room: bool = True) -> Link:
        session = None
        if room:
            leading_space = agreed.steps & Step.LEADING_SPACE != 0
            session = Session(
                self._port, self._spool, early=self._early, leading_space=leading_space, bounds=self._bounds
            )
        link = Link(session, agreed)
        ctx.setpriv(link)
        if room:
            self._links.add(link)
        return link

    def _follow(self, ctx: Context) -> Link:
        """A new session on a connection that said QUIT_NC: as agreed before, but nobody told us what that was.

        The last terms will be those; and an answer where none is due is one that libmilter withholds.
        """
        return self._link(ctx, Terms(self._agreed.acts, self._agreed.steps & Step.LEADING_SPACE))

    def _carry_out(self, ctx: Context, link: Link, ending: Ending, decision: Decision) -> int:
        message = ending.message
        changes: Sequence[edits.Edit] = plan(
            decision,
            message,
            self._host,
            trusted=self._trusts(message.envelope.client),
            mark=link.marks,
            unkept=ending.unkept,
        )
        if self._voucher is not None:
            changes = self._voucher.vouch(decision, message, changes)
        send(ctx, changes, leading_space=link.leading_space)
        verdict = decision.verdict
        if verdict.reply and (parts := reply.split(verdict.reply)) is not None:
            ctx.setreply(*parts)
        return int(_FINAL[verdict.disposition])


def _allow_packets(octets: int) -> None:
    """Raise libmilter's limit for one packet; pymilter has no call for it."""
    libmilter = ctypes.CDLL(Milter.milter.__file__)  # the C module, which brings libmilter's symbols
    libmilter.smfi_setmaxdatasize.argtypes = [ctypes.c_size_t]
    libmilter.smfi_setmaxdatasize.restype = ctypes.c_size_t
    libmilter.smfi_setmaxdatasize(octets)
