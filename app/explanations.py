"""What each type of problem means: what happened, why, and what to do. The `type` of every problem document leads here.

`docs/errors.md` and the pages under `/problems` are made of this table; a test holds it to what code can raise.
"""

from dataclasses import dataclass

from app import errors


@dataclass(frozen=True)
class Explanation:
    """title, status: of the problem document. why: the usual reasons; the document's `detail` has the one at hand."""

    code: str
    title: str
    status: int
    retryable: bool
    happened: str
    why: str
    what_to_do: str


# by code: what happened, why, what to do
TEXTS: dict[str, tuple[str, str, str]] = {
    "internal": (
        "The service met something that its authors did not foresee, and gave up on this request or job.",
        "A mistake in detrank, or a machine in trouble, such as one without memory.",
        "Look in the service's log under the `request_id` of the problem document. Repeat the request once; if it fails again, report "
        "it with those lines of the log.",
    ),
    "not_found": (
        "Nothing has this address, id or name.",
        "It was deleted or has expired, the id is mistyped, or the key belongs to another workspace, whose things it cannot see.",
        "List what there is (`GET /v1/datasets`, `/v1/checkpoints`, `/v1/rankings`, ...) and take the id from there. `/docs` has every "
        "address.",
    ),
    "method_not_allowed": (
        "The address exists, and this method does not work on it.",
        "A GET where a POST is needed, or the other way round; often a missing `:cancel` or `:retry` at the end of the address.",
        "Take one of the methods in the `Allow` header of the answer; `/docs` shows what each of them does.",
    ),
    "invalid_request": (
        "The request was understood, and cannot be carried out as it is written.",
        "A field has a value that is not allowed, is unknown, or contradicts another one; or it names something that is not ready.",
        "`errors` points at every field at fault and says what would be right. Change those and send it again.",
    ),
    "malformed_request": (
        "The request could not be read at all.",
        "The body is not JSON, a header is not in its format, or the connection ended before the body did.",
        "Look at `detail` for the place. With curl, send JSON by `--json` and files by `--data-binary @file`.",
    ),
    "unauthenticated": (
        "The service asks for an API key, and there was none, or it is not valid.",
        "No `Authorization: Bearer` header, a mistyped key, or one that has been revoked or has expired.",
        "Give a key: `DETRANK_API_KEY` or `--key` for the command line and the client, the header for curl. Whoever runs the service "
        "makes one with `detrank keys create NAME`.",
    ),
    "forbidden": (
        "The request is understood and this service does not allow it.",
        "It came from another machine or a foreign page while no keys are asked for, the key may not do it (its scope is too small), or "
        "it names a source or a path that whoever runs the service has not allowed.",
        "`detail` names the setting: `DETRANK_AUTH=keys` to be reached by others, `DETRANK_ALLOWED_SOURCES` for data that stays where "
        "it is, `DETRANK_ALLOW_LOCAL_PATHS` for files of the server; or the scope that a key needs (`detrank keys create NAME --scope "
        "write`).",
    ),
    "quota_exceeded": (
        "The workspace would have more stored or queued than whoever runs the service allows it; nothing was kept.",
        "The quota of bytes or of queued jobs is used up, or what was sent is larger than what is left.",
        "`detail` says what is used and what may be, `errors` the largest things. Delete datasets and checkpoints that are not needed, "
        "wait until jobs have ended or cancel some; `detrank workspaces show` tells the state. An admin raises a quota with `detrank "
        "workspaces set`.",
    ),
    "too_many_requests": (
        "The key or its workspace asked, or began to send files, more often than it may.",
        "A loop that polls without a pause, or many programs with keys of one workspace.",
        "Wait as long as `Retry-After` says, then go on; the Python client and the command line do so by themselves. `RateLimit` in every "
        "answer tells what is left. Wait for changes with `?wait=30` or `/events` in place of polling.",
    ),
    "conflict": (
        "What was asked for does not go together with the present state.",
        "Something is still at work, has already ended, is used by something else, or was changed at the same moment.",
        "Look at it again and decide anew: wait until it has ended, cancel it, or delete first what uses it; `detail` says which.",
    ),
    "precondition_failed": (
        "`If-Match` or `Upload-Offset` named a version that is no longer the present one.",
        "Somebody changed it after you read it, or an upload went further than the answer you got.",
        "Read it again, with its new `ETag` (or ask an upload by HEAD for its offset), and repeat the request from there.",
    ),
    "too_large": (
        "The body has more bytes than this service takes.",
        "A file above `DETRANK_MAX_UPLOAD_BYTES`, or a JSON body above `DETRANK_MAX_JSON_BYTES`.",
        "Send files as raw bodies or uploads, not inside JSON. Leave large data where it is and name it as a source, or have the limit "
        "raised.",
    ),
    "unsupported_media_type": (
        "The body is of a kind that nothing here reads.",
        "A form (multipart), a compressed transfer, or a file that is no archive.",
        "Send the file itself as the body: `curl --data-binary @set.zip`. Datasets are zip, tar or tar.gz.",
    ),
    "checksum_mismatch": (
        "The bytes of an upload are not those that `Upload-Checksum` promised; none of them was kept.",
        "Something on the way changed or cut them.",
        "Send the same part again. The offset has not moved.",
    ),
    "storage_full": (
        "There is no room to keep what was sent or computed.",
        "The disk of the data folder, of the storage or of the database is nearly full (`DETRANK_MIN_FREE_DISK_BYTES` stay free).",
        "Free some room or delete what is no longer needed, then repeat the request. Jobs that met a full disk wait and go on by "
        "themselves.",
    ),
    "unavailable": (
        "A part that the service needs does not answer.",
        "The database, the storage or a hub is away, or being started.",
        "Wait as long as `Retry-After` says and repeat the request; `/readyz` and `detrank doctor` tell which part it is.",
    ),
    "unusable_archive": (
        "The archive cannot be unpacked within the limits that keep it harmless.",
        "It is damaged, protected by a password, holds links or paths that lead outside, or far more than it seems to.",
        "Pack the folder anew as a plain zip. A whole folder can be given to the command line and to the client, which pack it.",
    ),
    "unusable_dataset": (
        "The archive was unpacked, and no dataset to train on could be made of it.",
        "No format was recognised, no picture has a usable label, or most of the labels could not be read.",
        "Read the report (`GET /v1/datasets/ID/report`): it names every file that was left out, with the reason. "
        "Name the `format` if another one was recognised than is meant; `docs/datasets.md` shows how each looks.",
    ),
    "source_changed": (
        "A picture that stays elsewhere is no longer the one that the dataset was made of.",
        "Files at the source were replaced, renamed or deleted after the dataset was added.",
        "Add the source again: that makes a new dataset of what is there now. Earlier results stay with the earlier one.",
    ),
    "unusable_checkpoint": (
        "The file holds no weights that can be placed into a detector.",
        "Its architecture is not known or was not recognised, tensors are missing or have other shapes, the digest is not the one asked "
        "for, or the file would run code when it is loaded.",
        "Say what the file does not: `architecture`, `num_classes` or `options` (`docs/checkpoints.md`). Files that run code are never "
        "loaded; save the `state_dict` alone.",
    ),
    "candidate_failed": (
        "One candidate of a ranking could not be scored; the others are ordered without it.",
        "Memory ran out at this image size, a layer that was asked for does not exist in it, or its features are not finite.",
        "Take what `detail` says, often a smaller `image_size` or other `layers`, and retry the ranking: what was scored is kept.",
    ),
    "verification_failed": (
        "The checkpoint could not be fine-tuned.",
        "The loss stopped being a number, memory ran out, or the subset has nothing to train on.",
        "Retry goes on from the last state. For a loss that is not a number take a smaller `lr_factor` or `precision=float32`, for "
        "memory a smaller `batch_size` or `image_size`.",
    ),
    "pretraining_failed": (
        "The detector could not be pretrained.",
        "The loss stopped being a number, memory ran out, or no regions were found in the pictures.",
        "Retry goes on from the last state; `docs/pretraining.md` says which settings help for which reason.",
    ),
    "pseudo_labelling_failed": (
        "No boxes could be made for the pictures.",
        "The teacher cannot find the classes that were asked for, memory ran out, or nothing was found that is sure enough to be kept.",
        "Take what `detail` says, often a lower threshold, another teacher or a smaller `image_size`, and retry.",
    ),
    "study_failed": (
        "A study has ended without one number to stand on.",
        "Fewer than three candidates were both scored and fine-tuned on every dataset.",
        "Look at `left_out` for what failed and why, mend that, and retry: what was scored and trained is kept.",
    ),
    "attempts_exhausted": (
        "A job was tried as often as allowed, and no attempt came to its end.",
        "Its workers died under it, mostly because memory ran out (the system kills the process), or lost the database for too long.",
        "Look in the worker's log around the times of the attempts. Give the worker more memory, or ask for less, such as fewer "
        "`max_images` or a smaller `image_size`, then retry.",
    ),
    "time_limit_exceeded": (
        "A job took longer than one attempt may.",
        "It is larger than the limit foresees, or it hangs, such as on a hub that does not answer.",
        "Retry it: trainings go on from their last state. Otherwise ask for less, or have the setting raised that the "
        "detail names: `DETRANK_INTAKE_TIME_LIMIT_S` of what is sent, `DETRANK_VERIFY_TIME_LIMIT_S` of trainings, "
        "`DETRANK_JOB_TIME_LIMIT_S` of the rest.",
    ),
    "transient_failure": (
        "A passing fault; the job is queued again by itself.",
        "The network, the storage or a hub failed for a moment.",
        "Nothing, unless it comes back: then look at `detrank doctor`.",
    ),
    "cancelled": (
        "The job that prepares a dataset or checkpoint was cancelled before it had ended.",
        "Somebody asked for that.",
        "Retry the job, or send the file again.",
    ),
}


KINDS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.DetrankError)
}


def explanation(code: str) -> Explanation:
    """Of one type of problem. Raises NotFound."""
    if code not in TEXTS:
        raise errors.NotFound(f"no problem is called {code}; there are {', '.join(TEXTS)}")
    return Explanation(code, KINDS[code].title, KINDS[code].status, KINDS[code].retryable, *TEXTS[code])
