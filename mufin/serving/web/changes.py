"""Changes of products: kept first, then applied, then acknowledged; many in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mufin.errors import MufinError
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import QueryError
from mufin.serving.web.jobs import Change, Changed, settle
from mufin.serving.web.refusals import LATER, Refusal, failed
from mufin.serving.web.service import Keeper, Service

logger = logging.getLogger("mufin.serve")
# (upserts, deletes) of each transaction
Applied = list[tuple[list[LiveProduct], list[str]]]


def change_all(
    group: Sequence[Change],
    service: Service,
    keeper: Keeper,
    since: Callable[[], Applied | None],
) -> None:
    """Keep and apply the changes in their order, and settle their futures; never raises.

    A change that is refused, or that cannot be kept, harms no other one. What was applied is added
    to the list that `since` returns, if any. That is called after the commit: a model that begins
    to load before it may not find the change in the store.
    """
    group = [change for change in group if _accepted(change, service)]
    if not group:
        return
    try:
        _count_deleted(group, service)
        upserts, deletes = _net(group)
        if upserts or deletes:
            keeper.commit(upserts, deletes)
    except Exception as error:
        if len(group) > 1:
            for change in group:
                change_all([change], service, keeper, since)
        else:
            settle(group[0].future, _not_kept(error))
        return
    if (record := since()) is not None:
        record.append((upserts, deletes))
    _apply(group, upserts, deletes, service)


def _accepted(change: Change, service: Service) -> bool:
    """Whether the recommender takes the products; if not, the caller is told."""
    try:
        found = service.refusals(change.upserts) if change.upserts else []
    except Exception:
        logger.exception("a change failed")
        settle(change.future, failed())
        return False
    for number, error in enumerate(found):
        if error is not None:
            settle(change.future, QueryError(f"{number}.{error.field}", str(error)))
            return False
    return True


def _count_deleted(group: Sequence[Change], service: Service) -> None:
    """How many of the products to delete are there when their turn comes."""
    there: dict[str, bool] = {}
    for change in group:
        there |= {product.uid: True for product in change.upserts}
        uids = dict.fromkeys(change.deletes)
        change.deleted = sum(
            there[uid] if uid in there else service.product(uid) is not None for uid in uids
        )
        there |= dict.fromkeys(uids, False)


def _net(group: Sequence[Change]) -> tuple[list[LiveProduct], list[str]]:
    """What is left to do where a product was changed several times: the last of it."""
    last: dict[str, LiveProduct | None] = {}
    for change in group:
        for product in change.upserts:
            last.pop(product.uid, None)  # to the end: the store keeps the order of changes
            last[product.uid] = product
        for uid in change.deletes:
            last.pop(uid, None)
            last[uid] = None
    upserts = [product for product in last.values() if product is not None]
    return upserts, [uid for uid, product in last.items() if product is None]


def _apply(
    group: Sequence[Change], upserts: list[LiveProduct], deletes: list[str], service: Service
) -> None:
    try:
        if deletes:
            service.delete(deletes)
        if upserts:
            service.upsert(upserts)
        results = [_changed(change, service) for change in group]
    except Exception:
        logger.exception("a change was kept, but could not be applied before the next start")
        results = [failed() for _ in group]
    for change, result in zip(group, results):
        settle(change.future, result)


def _changed(change: Change, service: Service) -> Changed | Refusal:
    now = [service.product(product.uid) for product in change.upserts]
    return Changed(len({product.uid for product in change.upserts}), change.deleted, now)


def _not_kept(error: Exception) -> Refusal:
    logger.error("a change could not be kept", exc_info=error)
    why = f" ({error})" if isinstance(error, MufinError) else ""
    return Refusal(503, f"the change could not be kept{why}; nothing was changed", headers=LATER)
